//! Running out of memory ends a command with one line that says what to do, and a documented exit code; never with a
//! panic or a hang.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::common::{Outcome, mpirun, program, run, sets, succeed, train};

/// The documented exit code.
const OUT_OF_MEMORY: i32 = 6;

/// A command whose processes are each limited to `mib` MiB of address space.
fn within(command: &Command, mib: usize) -> Command {
    let mut limited = Command::new("bash");
    let limit = format!("ulimit -v {}; exec \"$0\" \"$@\"", mib << 10);
    limited.args(["-c", &limit]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited.current_dir(command.get_current_dir().unwrap());
    limited
}

/// A network whose activations for many images take gigabytes each, so that it fails before it computes much.
const WIDE: [&str; 8] = [
    "data.image_size=64",
    "data.count=8192",
    "model.channels=[16]",
    "model.attention=[false]",
    "train.global_batch=8192",
    "monitor.sample_every=0",
    "monitor.tensorboard=false",
    "checkpoint.every=1000",
];
/// Enough for the program on any machine, but far from enough for the activations.
const MIB: usize = 3000;

/// The line of a command that ran out of memory, of a rank or of a single process.
fn line(outcome: &Outcome) -> &str {
    assert_eq!(outcome.code, OUT_OF_MEMORY, "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("panicked") && !outcome.stderr.contains("backtrace"), "{}", outcome.stderr);
    let lines: Vec<&str> = outcome.stderr.lines().filter(|line| line.contains("error: out of memory")).collect();
    assert!(!lines.is_empty(), "{}", outcome.stderr);
    // Several ranks may run out of memory, and each reports it.
    assert!(lines.iter().all(|line| line.starts_with("rank ") || lines.len() == 1), "{}", outcome.stderr);
    lines[0]
}

#[test]
fn training_reports_rank_step_and_remedy() {
    for ranks in [1, 2] {
        let dir = TempDir::new().unwrap();
        let options = sets(&WIDE);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let outcome = run(&mut within(&train(ranks, dir.path(), 1, &options), MIB));
        let line = line(&outcome);
        assert!(line.starts_with("rank ") && line.contains(" step 0: error: out of memory on this machine"), "{line}");
        let half = 4096 / ranks;
        let micro_batch = format!("Set train.micro_batch to {half} (now {})", 2 * half);
        // bf16 is advice only on a processor that computes in it.
        let advice = if tch_ext::multiplies_bf16() {
            format!("{micro_batch}, model.checkpoint_activations to [true] or train.precision to \"bf16\"")
        } else {
            format!("{micro_batch} or model.checkpoint_activations to [true]")
        };
        assert!(line.ends_with(&advice), "{line}");
    }
}

/// Following the advice repeatedly leads to a run that fits.
#[test]
fn a_smaller_micro_batch_fits() {
    let dir = TempDir::new().unwrap();
    let options = sets(&[&WIDE[..], &["train.micro_batch=4", "train.global_batch=8"]].concat());
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    succeed(&mut within(&train(1, dir.path(), 1, &options), MIB));
}

#[test]
fn a_benchmark_and_a_too_large_model_report_it_in_the_same_way() {
    let dir = TempDir::new().unwrap();
    let mut bench = mpirun(1);
    bench.args(["bench", "step", "--config", "smoke", "--steps", "1", "--warmup", "0"]).args(sets(&WIDE));
    let outcome = run(&mut within(bench.env("TMPDIR", dir.path()), MIB));
    assert!(line(&outcome).contains(" step 0: error: out of memory on this machine"), "{}", outcome.stderr);

    // The weights alone exceed the memory.
    let large = sets(&["model.channels=[8192]", "model.attention=[false]", "monitor.tensorboard=false"]);
    let large: Vec<&str> = large.iter().map(String::as_str).collect();
    for ranks in [1, 2] {
        let outcome = run(&mut within(&train(ranks, &dir.path().join("large"), 1, &large), MIB));
        assert!(line(&outcome).starts_with("error: out of memory on this machine ("), "{}", outcome.stderr);
    }
}

/// Images of `train`'s model, drawn and evaluated in batches of many.
#[test]
fn sampling_and_evaluation_suggest_smaller_batches() {
    let dir = TempDir::new().unwrap();
    let run_dir = dir.path().join("run");
    let few = sets(&[&WIDE[..], &["train.global_batch=8"]].concat());
    let few: Vec<&str> = few.iter().map(String::as_str).collect();
    succeed(&mut train(1, &run_dir, 1, &few));
    let with = |words: &str, path: &Path| {
        let mut command = program();
        command.args(words.split_whitespace()).arg("--model").arg(&run_dir).args(["--batch", "8192"]);
        if words.starts_with("eval") {
            command
        } else {
            command.arg("--out").arg(path);
            command
        }
    };
    let out = dir.path().join("out.safetensors");
    for words in [
        "sample -n 8192 --steps 2",
        "encode -n 8192 --steps 2 --split train",
        "eval nll -n 8192 --timesteps 2 --split train",
    ] {
        let outcome = run(&mut within(&with(words, &out), MIB));
        let line = line(&outcome);
        assert!(line.ends_with("Lower --batch, which is 8192"), "{words}: {line}");
        assert!(!out.exists(), "{words}");
    }
}

/// Features of all images, 65,536 of each.
#[test]
fn comparing_images_suggests_fewer_of_them() {
    let sides = [("--images", "--images-set", "-n"), ("--data", "--set", "--reference-count")];
    let sides =
        sides.map(|(data, set, n)| format!("{data} smoke {set} data.image_size=256 {set} data.count=3000 {n} 3000"));
    for (words, relief) in [
        ("pr", "Lower the numbers of images, -n and --reference-count, or --batch, which is 64"),
        (
            "kid --subset-size 3000",
            "Lower --subset-size, which is 3000, --batch, which is 64, or the numbers of images",
        ),
    ] {
        let mut command = program();
        command.arg("eval").args(words.split_whitespace()).args(sides.join(" ").split_whitespace());
        let outcome = run(&mut within(&command, MIB));
        assert!(line(&outcome).contains(relief), "{words}: {}", outcome.stderr);
    }
}
