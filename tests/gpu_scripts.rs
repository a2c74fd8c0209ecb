//! The scripts for a machine with a GPU, on one without: every line of scripts/gpu/check.sh runs, each verdict can
//! be WRONG, and the archive of scripts/gpu/bundle.sh needs neither cargo nor an installed Open MPI.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{Outcome, root, run, succeed, write_script};
use crate::fake;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ddpm-dist");

/// The folder of scripts that stand for programs of a machine with a GPU.
fn stand_ins() -> TempDir {
    let dir = TempDir::new().unwrap();
    let peer = r#"exec "$DDPM_DIST" bench step --json --config smoke --steps 1 --warmup 0 --set train.global_batch=2 \
        --set 'model.channels=[8]' --set data.image_size=8 --set train.device=cpu"#;
    for (name, script) in [
        ("nvidia-smi", "echo 1234"),
        ("compute-sanitizer", r#"shift 2; exec "$@""#),
        ("peer", peer),
        ("none", "exit 0"),
    ] {
        write_script(&dir.path().join(name), &format!("#!/bin/sh\n{script}\n"));
    }
    dir
}

fn path_with(folder: &Path) -> String {
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
}

/// The NCCL example, if this build has it, over the fake library; else a program that succeeds.
fn example(command: &mut Command, stand_ins: &Path) {
    let built = Path::new(PROGRAM).with_file_name("examples").join("gpu");
    if built.exists() {
        let library = fake::library(env!("CARGO_TARGET_TMPDIR"), &["-DHOST_MEMORY"]);
        command.envs([("GPU_EXAMPLE", &built), ("DDPM_NCCL_LIB", &library), ("DDPM_CUDART_LIB", &library)]);
    } else {
        command.env("GPU_EXAMPLE", stand_ins.join("none"));
    }
}

/// `check.sh ARGS` with the smallest sizes on the CPU; the lines that bash executes are appended to OUT/trace.
fn check(out: &Path, stand_ins: &Path, arguments: &[&str]) -> Command {
    let script = r#"exec 7>>"$OUT/trace"
        BASH_XTRACEFD=7
        PS4='+${BASH_SOURCE-}:$LINENO '
        set -x
        . "$0" "$@""#;
    let mut command = Command::new("bash");
    command.args(["-c", script, "scripts/gpu/check.sh"]).args(arguments).current_dir(root());
    command.envs([("DEVICE", "cpu"), ("TINY", "1"), ("OMP_NUM_THREADS", "1"), ("CUDA_VISIBLE_DEVICES", "")]);
    command.env("OUT", out).env("DDPM_DIST", PROGRAM).env("PATH", path_with(stand_ins));
    command.env("PEER", stand_ins.join("peer")).env_remove("RUST_LOG").env_remove("TORCH");
    example(&mut command, stand_ins);
    command
}

/// The lines of a part's JSON file.
fn lines(out: &Path, part: &str) -> Vec<Value> {
    let text = fs::read_to_string(out.join(format!("part{part}.jsonl"))).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The names of the lines with this verdict.
fn with_verdict(lines: &[Value], verdict: &str) -> Vec<String> {
    let found = lines.iter().filter(|line| line["verdict"] == verdict);
    found.map(|line| line["name"].as_str().unwrap().to_owned()).collect()
}

/// The statements of a bash script: the first and last line of each. A statement goes on after a trailing operator.
fn statements(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let (mut heredoc, mut start) = (None::<String>, None);
    for (index, line) in text.lines().enumerate() {
        let (number, line) = (index + 1, line.trim());
        if let Some(end) = &heredoc {
            if line == end {
                heredoc = None;
            }
            continue;
        }
        if let Some((_, end)) = line.split_once("<<'") {
            heredoc = Some(end.trim_end_matches('\'').to_owned());
        }
        let first = line.split([' ', ';']).next().unwrap_or_default();
        let structure = ["", "fi", "done", "else", "esac", "{", "}"].contains(&first)
            || line.starts_with('#')
            || line.split_once("() {").is_some_and(|(_, body)| !body.contains('}'))
            || line == "[123]) ;;";
        if structure && start.is_none() {
            continue;
        }
        let from = start.take().unwrap_or(number);
        if ["\\", "&&", "||", "|"].iter().any(|operator| line.ends_with(operator)) {
            start = Some(from);
        } else {
            found.push((from, number));
        }
    }
    found
}

/// Statements of the scripts that no line of the traces belongs to.
fn not_executed(traces: &str) -> Vec<String> {
    let place = |line: &str| line.strip_prefix('+')?.split(' ').next()?.rsplit(['/', '+']).next().map(str::to_owned);
    let executed: BTreeSet<String> = traces.lines().filter_map(place).collect();
    let mut missed = Vec::new();
    for name in ["check.sh", "lines.sh", "part1.sh", "part2.sh", "part3.sh"] {
        let text = fs::read_to_string(root().join("scripts/gpu").join(name)).unwrap();
        for (from, to) in statements(&text) {
            if !(from..=to).any(|number| executed.contains(&format!("{name}:{number}"))) {
                missed.push(format!("{name}:{from}: {}", text.lines().nth(from - 1).unwrap()));
            }
        }
    }
    missed
}

#[test]
fn every_line_of_the_checks_runs_without_a_gpu() {
    let (out, stand_ins) = (TempDir::new().unwrap(), stand_ins());
    // Exactly the altered check is wrong, and all others are there.
    let mut found = Vec::new();
    for (part, wrong) in [("1", &["again"][..]), ("2", &[]), ("3", &[])] {
        let outcome = run(check(out.path(), stand_ins.path(), &[part]).env("WRONG_ON_PURPOSE", "again"));
        let lines = lines(out.path(), part);
        assert_eq!(with_verdict(&lines, "WRONG"), wrong, "{}", outcome.stdout);
        assert_eq!(with_verdict(&lines, "ok").len(), lines.len() - wrong.len(), "{}", outcome.stdout);
        assert_eq!(outcome.code, i32::from(!wrong.is_empty()), "{}{}", outcome.stdout, outcome.stderr);
        assert!(lines.iter().all(|line| line["command"].is_string() && line["reason"].is_string()), "{lines:?}");
        found.extend(lines);
    }
    assert!(found.len() > 50, "{found:?}");
    let kernels = fs::read_to_string(out.path().join("kernels.txt")).unwrap();
    assert!(kernels.contains("aten::"), "{kernels}");
    each_verdict_can_be_wrong(out.path(), &found);

    // What runs only if something fails: the program does, the time is over, a tool is missing.
    let mut all = vec![out];
    let mut also = |arguments: &[&str], variables: &[(&str, &str)]| -> (Outcome, PathBuf) {
        let out = TempDir::new().unwrap();
        let path = out.path().to_owned();
        let outcome = run(check(&path, stand_ins.path(), arguments).envs(variables.iter().copied()));
        all.push(out);
        (outcome, path)
    };
    for part in ["1", "2", "3"] {
        let (outcome, out) = also(&[part], &[("DDPM_DIST", "/bin/false"), ("PEER", "/bin/false")]);
        assert_eq!(outcome.code, 1, "{}", outcome.stdout);
        assert!(!with_verdict(&lines(&out, part), "FAILED").is_empty(), "{}", outcome.stdout);
    }
    // A program that succeeds, but gives nothing.
    let (outcome, out) = also(&["1"], &[("DDPM_DIST", "/bin/true")]);
    assert!(with_verdict(&lines(&out, "1"), "FAILED").contains(&"cpu".to_owned()), "{}", outcome.stdout);
    let (outcome, out) = also(&["1"], &[("DEVICE", "cuda"), ("TINY", ""), ("BUDGET", "0")]);
    let skipped = with_verdict(&lines(&out, "1"), "SKIPPED");
    assert!(skipped.contains(&"doctor".to_owned()) && skipped.contains(&"sanitizer".to_owned()), "{}", outcome.stdout);
    let (_, out) = also(&["2"], &[("BUDGET", "0"), ("PEER", ""), ("TINY", "")]);
    assert!(with_verdict(&lines(&out, "2"), "SKIPPED").iter().any(|name| name.starts_with("cifar10 bf16 128")));
    let (outcome, _) = also(&["--help"], &[]);
    assert!(outcome.stdout.contains("scripts/gpu/check.sh 3"), "{}", outcome.stdout);
    assert_eq!(also(&[], &[]).0.code, 2);
    let hidden = [("PATH", "/usr/bin:/bin"), ("BUDGET", "0")];
    let (_, out) = also(&["1"], &hidden);
    assert!(with_verdict(&lines(&out, "1"), "SKIPPED").contains(&"sanitizer".to_owned()));

    let traces: Vec<String> = all.iter().map(|out| fs::read_to_string(out.path().join("trace")).unwrap()).collect();
    let missed = not_executed(&traces.concat());
    assert!(missed.is_empty(), "never executed:\n{}", missed.join("\n"));
}

/// For each line that expects a number: another number and NaN are WRONG.
fn each_verdict_can_be_wrong(out: &Path, lines: &[Value]) {
    let compare = || {
        let mut command = Command::new("python3");
        command.arg("scripts/gpu/compare.py").current_dir(root());
        command
    };
    let file = out.join("wrong.jsonl");
    let mut number = 0;
    for line in lines {
        let Some(expected) = line["expected"].as_f64() else { continue };
        let tolerance = line["tolerance"].as_f64().unwrap();
        for value in [format!("{}", expected + tolerance * 1.1 + 1e-7), "nan".to_owned()] {
            let (expected, tolerance) = (expected.to_string(), tolerance.to_string());
            let options = ["--value", &value, "--expected", &expected, "--tolerance", &tolerance];
            succeed(compare().arg("line").arg(&file).args(["--name", line["name"].as_str().unwrap()]).args(options));
            number += 1;
        }
    }
    let text = fs::read_to_string(&file).unwrap();
    assert!(number > 30 && text.matches("\"verdict\": \"WRONG\"").count() == number, "{text}");
    assert_eq!(run(compare().arg("verdict").arg(&file)).code, 1);

    // The differences themselves: one step of many differs, or is not a number, or is missing.
    let log = |losses: &[&str]| {
        let path = out.join(format!("{}.jsonl", losses.join("-")));
        let line = |(step, loss): (usize, &&str)| format!("{{\"step\":{step},\"loss\":{loss}}}\n");
        fs::write(&path, losses.iter().enumerate().map(line).collect::<String>()).unwrap();
        path
    };
    let difference = |ours: &[&str]| run(compare().arg("losses").arg(log(ours)).arg(log(&["1", "2", "4"])));
    assert_eq!(difference(&["1", "2", "4"]).stdout.trim(), "0.0");
    assert_eq!(difference(&["1", "3", "4"]).stdout.trim(), "0.5");
    assert_eq!(difference(&["1", "null", "4"]).stdout.trim(), "nan");
    assert_eq!(difference(&["1", "2"]).code, 1);
}

/// Runs `"$@"` where Open MPI is not installed, and cargo is not on the PATH: in a mount namespace of its own.
const HIDDEN: &str = r#"set -e
mount --make-rprivate /
lib=/usr/lib/x86_64-linux-gnu
for folder in $lib/openmpi $lib/pmix2 /usr/share/openmpi /etc/openmpi; do [ ! -d $folder ] || mount -t tmpfs none $folder; done
for file in $lib/lib{mpi,open-rte,open-pal,pmix,hwloc,event_core-2.1,event_pthreads-2.1}.so.* $lib/libmca_common_*.so.* \
    /usr/bin/orterun /usr/bin/orted; do
    if [ -f $file ] && [ ! -L $file ]; then mount --bind /dev/null $file; fi
done
exec "$@""#;

#[test]
fn the_archive_needs_neither_cargo_nor_open_mpi() {
    let dir = TempDir::new().unwrap();
    let archive = dir.path().join("ddpm-gpu.tar.gz");
    let mut bundle = Command::new("scripts/gpu/bundle.sh");
    bundle.arg(&archive).current_dir(root()).env("BUILT", Path::new(PROGRAM).parent().unwrap()).env("WHEELS", "none");
    let packed = succeed(&mut bundle);
    assert!(packed.stderr.contains(" MB"), "{}", packed.stderr);
    assert!(fs::metadata(&archive).unwrap().len() < 40 << 20);
    succeed(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(dir.path()));

    let torch = std::env::var("LIBTORCH").expect("cargo sets it, from .cargo/config.toml");
    let permitted = run(Command::new("unshare").args(["-m", "true"])).code == 0;
    let inside = |script: &str| {
        let mut command = Command::new(if permitted { "unshare" } else { "env" });
        if permitted {
            command.args(["-m", "bash", "-c", HIDDEN, "hidden"]);
        }
        command.args(["bash", "-euc", &format!(". scripts/gpu/env.sh; {script}")]);
        command.current_dir(dir.path().join("ddpm-gpu")).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/root");
        command.envs([("TORCH", torch.as_str()), ("OMP_NUM_THREADS", "1"), ("DEVICE", "cpu"), ("TINY", "1")]);
        command.env("OUT", dir.path().join("out"));
        succeed(&mut command).stdout
    };
    if !permitted {
        eprintln!("Open MPI is not hidden, because mount namespaces are not permitted here: ldd decides");
    }
    assert_eq!(inside("command -v cargo || true"), "");
    let loaded = inside("ldd \"$DDPM_DIST\" $(find mpi -name 'mca_*.so') mpi/usr/bin/*");
    let home = dir.path().canonicalize().unwrap();
    for line in loaded.lines().filter(|line| line.contains(" => ")) {
        let ours = ["libmpi", "libopen-", "libpmix", "libhwloc", "libevent", "libmca"];
        if ours.iter().any(|name| line.trim().starts_with(name)) {
            assert!(line.contains(&format!(" => {}", home.display())), "{line}");
        }
    }
    let train = |launcher: &str, name: &str| {
        inside(&format!(
            "{launcher} train --config smoke --set run.dir={name} --set train.device=cpu --set train.steps=3 \
             --set monitor.sample_every=0 --set monitor.tensorboard=false >&2; cat {name}/metrics.jsonl"
        ))
    };
    assert_eq!(train("\"$DDPM_DIST\"", "one").lines().count(), 3);
    assert_eq!(train("launch/local.sh 2", "two").lines().count(), 3);
    assert!(inside("command -v mpirun").starts_with(home.to_str().unwrap()));
    let table = inside("scripts/gpu/check.sh 3");
    assert!(table.contains("launches per step") && table.contains("0 FAILED"), "{table}");
}
