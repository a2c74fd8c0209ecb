//! `doctor --ranks` under mpirun: what ranks have in common, what they disagree on, and the verdict.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{mpirun, program, refused, run, succeed, write_script};
use serde_json::Value;
use tempfile::TempDir;

/// `doctor --ranks` on two ranks, for a run in `dir`.
fn doctor(dir: &Path) -> Command {
    let mut command = mpirun(2);
    command.args(["doctor", "--ranks", "--config", "smoke", "--set"]).arg(format!("run.dir={}", dir.display()));
    command
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn ranks_that_agree_are_ready() {
    let dir = TempDir::new().unwrap();
    let shown = succeed(&mut doctor(&dir.path().join("run"))).stdout;
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].starts_with("rank  host  "), "{shown}");
    for (rank, line) in lines[1..3].iter().enumerate() {
        assert!(line.starts_with(&format!("{rank}     ")), "{shown}");
        for part in [" us ", " MB/s ", " ok ", " 512 images, "] {
            assert!(line.contains(part), "{part}: {shown}");
        }
    }
    assert!(lines[2].contains(" ms "), "the clock of rank 1: {shown}");
    let verdict = lines.last().unwrap();
    assert!(verdict.starts_with("verdict: 2 ranks on 1 machine, ready to train"), "{shown}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn ranks_that_disagree_are_named_and_fail_the_command() {
    let dir = TempDir::new().unwrap();
    // Rank 1 has other instructions, and a folder of its own where rank 0 has the store.
    let wrapper = dir.path().join("on-rank-1");
    let other = format!("export ATEN_CPU_CAPABILITY=default; cd '{}'", dir.path().display());
    let script = format!(
        "#!/bin/sh\nif [ \"$OMPI_COMM_WORLD_RANK\" = 1 ]; then {other}; fi\nexec '{}' \"$@\"\n",
        env!("CARGO_BIN_EXE_ddpm-dist")
    );
    write_script(&wrapper, &script);
    let mut command = mpirun(2);
    command.env("DDPM_DIST", &wrapper).args(["doctor", "--ranks", "--json", "--config", "smoke"]);
    // A relative path: another folder on each rank.
    command.args(["--set", "run.dir=target/tmp/doctor-of-two"]);
    let outcome = run(&mut command);
    let objects = objects(&outcome.stdout);
    let text = |key: &str| objects.iter().filter_map(|object| object[key].as_str()).collect::<Vec<_>>().join("\n");
    let details = text("detail");
    assert!(details.contains("the set of instructions differs: any") && details.contains("on rank 1 ("), "{details}");
    assert!(details.contains("the store fails on rank 1 (") && details.contains("is another folder"), "{details}");
    assert_eq!((objects[0]["rank"].as_u64(), objects[0]["store"].as_str()), (Some(0), Some("ok")), "{objects:?}");
    assert!(objects[1]["links"][0]["mb_per_s"].as_f64() > Some(1.0), "{objects:?}");
    assert_eq!(objects[0]["data"], objects[1]["data"]);
    let last = objects.last().unwrap();
    assert!(last["verdict"].as_str().unwrap().contains("not ready: 2 problems"), "{last}");
    assert_eq!(outcome.code, 1, "the first problem is not one of the store: {}", outcome.stderr);
    assert!(outcome.stderr.contains("error: 2 problems; the lines above say what to do"), "{}", outcome.stderr);
}

#[test]
fn a_single_rank_can_be_examined_too() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let mut command = program();
    command.args(["doctor", "--ranks", "--config", "smoke", "--set"]).arg(format!("run.dir={}", file.display()));
    let outcome = refused(&mut command, 4, &["1 problem; the lines above say what to do"]);
    assert!(outcome.stdout.contains("problem: the store fails on rank 0 ("), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("verdict: 1 rank on 1 machine, not ready: 1 problem"), "{}", outcome.stdout);
    refused(program().args(["doctor", "--config", "smoke"]), 2, &["--ranks"]);
}
