//! Helpers of the whole-program tests: running the program alone or on ranks, with a time limit, and reading its files.

pub mod golden;
pub mod kill;
pub mod numbers;
pub mod rig;
pub mod tensorboard;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The time limit of any command in these tests; beyond it, the command counts as hung.
const LIMIT: Duration = Duration::from_secs(120);

/// How a command ended.
#[derive(Debug)]
pub struct Outcome {
    /// Exit status; -1 if a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Writes a script that can be executed.
pub fn write_script(path: &Path, script: &str) {
    fs::write(path, script).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The program, on one rank, in the root of the repository.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ddpm-dist"));
    plain(&mut command);
    command
}

/// The program on `ranks` ranks, with the launcher for users.
pub fn mpirun(ranks: usize) -> Command {
    let mut command = Command::new(root().join("launch/local.sh"));
    command.arg(ranks.to_string()).env("DDPM_DIST", env!("CARGO_BIN_EXE_ddpm-dist"));
    plain(&mut command);
    command
}

fn plain(command: &mut Command) {
    command.current_dir(root()).env("NO_COLOR", "1").env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
    // The number of threads changes the order of sums, and thus the last bits; so do GPUs, if this machine has any.
    command.env("OMP_NUM_THREADS", "1").env("CUDA_VISIBLE_DEVICES", "");
    // Statistics of data sets are not put into the user's cache.
    command.env("DDPM_CACHE", concat!(env!("CARGO_TARGET_TMPDIR"), "/cache"));
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Outcome {
    finish(start(command))
}

/// Starts a command whose output is kept.
pub fn start(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// `command`, run by `script` in bash as `"$@"`, with the same environment.
pub fn in_bash(script: &str, command: &Command) -> Command {
    let mut shell = Command::new("bash");
    shell.args(["-c", script, "bash"]).arg(command.get_program()).args(command.get_args());
    shell.current_dir(command.get_current_dir().unwrap());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

/// Waits for a command whose output is not kept; returns its exit status, -1 if a signal ended it.
pub fn wait(mut child: Child) -> i32 {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or(-1);
        }
        if started.elapsed() > LIMIT {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("still running after {LIMIT:?}");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits for a started command.
pub fn finish(mut child: Child) -> Outcome {
    let read = |mut pipe: Box<dyn Read + Send>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = read(Box::new(child.stdout.take().unwrap()));
    let stderr = read(Box::new(child.stderr.take().unwrap()));
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > LIMIT {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("still running after {LIMIT:?}; stderr: {}", stderr.join().unwrap());
        }
        thread::sleep(Duration::from_millis(20));
    };
    Outcome { code: status.code().unwrap_or(-1), stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// Sends a signal; returns whether there was such a process.
pub fn signal(name: &str, pid: u32) -> bool {
    // bash's built-in kill: not every machine has the program.
    Command::new("bash").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap().success()
}

/// `train` as started by [`train`], or without the launcher for `None`.
pub fn train_on(ranks: Option<usize>, dir: &Path, steps: u64, more: &[&str]) -> Command {
    let launched = train(ranks.unwrap_or(1), dir, steps, more);
    if ranks.is_some() {
        return launched;
    }
    let mut command = program();
    // The first argument is the launcher's number of ranks.
    command.args(launched.get_args().skip(1));
    command
}

/// Runs a command that must succeed.
pub fn succeed(command: &mut Command) -> Outcome {
    let outcome = run(command);
    assert_eq!(outcome.code, 0, "{command:?} failed: {}", outcome.stderr);
    outcome
}

/// Runs a command that must end with this exit code, and with an error that contains all of `parts`.
pub fn refused(command: &mut Command, code: i32, parts: &[&str]) -> Outcome {
    let outcome = run(command);
    assert_eq!(outcome.code, code, "{command:?}: {}", outcome.stderr);
    let message = outcome.stderr.split("error: ").last().unwrap();
    for part in parts {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
    outcome
}

/// `--set` before each option.
pub fn sets<T: AsRef<str>>(options: &[T]) -> Vec<String> {
    options.iter().flat_map(|option| ["--set".into(), option.as_ref().to_owned()]).collect()
}

/// `train --config smoke` into `dir` for `steps` steps, with more arguments.
pub fn train(ranks: usize, dir: &Path, steps: u64, more: &[&str]) -> Command {
    let mut command = mpirun(ranks);
    command.args(["train", "--config", "smoke", "--steps", &steps.to_string()]);
    command.arg("--set").arg(format!("run.dir={}", dir.display())).args(more);
    command
}

/// The lines of `metrics.jsonl`, by step, each step once.
pub fn metrics(dir: &Path) -> BTreeMap<u64, serde_json::Value> {
    let text = std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    let mut lines = BTreeMap::new();
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let step = line["step"].as_u64().unwrap();
        assert!(lines.insert(step, line).is_none(), "step {step} occurs twice in metrics.jsonl");
    }
    lines
}

/// Waits until `metrics.jsonl` has this many steps.
pub fn wait_for_step(dir: &Path, step: u64) {
    let log = dir.join("metrics.jsonl");
    wait_for(|| std::fs::read_to_string(&log).is_ok_and(|text| text.lines().count() as u64 >= step));
}

/// The losses of `metrics.jsonl`, by step.
pub fn losses(dir: &Path) -> Vec<(u64, f64)> {
    metrics(dir).into_iter().map(|(step, line)| (step, line["loss"].as_f64().unwrap())).collect()
}

/// Every flat buffer of the checkpoint of `step` in a run's own folder: see [`buffers_in`].
pub fn buffers(dir: &Path, step: u64) -> BTreeMap<String, Vec<u32>> {
    buffers_in(&dir.join("checkpoints"), step)
}

/// Every flat buffer of the checkpoint of `step` in a store, by name: weights, moments and averages, bit for bit.
pub fn buffers_in(store: &Path, step: u64) -> BTreeMap<String, Vec<u32>> {
    let store = ddpm_checkpoint::Store::open_existing(store.to_str().unwrap()).unwrap();
    let manifest = store.read_manifest(step).unwrap();
    let names = manifest.buffers.iter().map(|buffer| buffer.name.clone());
    let bits = |name: String| {
        let values = store.load_buffer(&manifest, &name).unwrap();
        (name, values.into_iter().map(f32::to_bits).collect())
    };
    names.map(bits).collect()
}

/// Asserts that both checkpoints have the same bits, and names the buffers that differ.
pub fn check_same_bits(what: &str, ours: &BTreeMap<String, Vec<u32>>, theirs: &BTreeMap<String, Vec<u32>>) {
    assert!(ours.contains_key("weights") && ours.keys().eq(theirs.keys()), "{what}: {:?}", ours.keys());
    let differing: Vec<&String> = ours.keys().filter(|name| ours[*name] != theirs[*name]).collect();
    assert!(differing.is_empty(), "{what}: {differing:?} differ");
}

/// Asserts that every committed checkpoint is valid; returns their steps, newest first.
pub fn verified(store: &Path) -> Vec<u64> {
    let store = ddpm_checkpoint::Store::open_existing(store.to_str().unwrap()).unwrap();
    let steps = store.list().unwrap();
    for step in &steps {
        let report = store.verify(*step).unwrap();
        assert!(report.faults.is_empty(), "step {step}: {:?}", report.faults);
    }
    steps
}

/// Waits until `done`, for a minute at most.
pub fn wait_for(mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(60), "waited for a minute");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The step of the last complete line of `metrics.jsonl`; 0 if there is none.
pub fn last_logged(dir: &Path) -> u64 {
    let text = std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap_or_default();
    let step = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?["step"].as_u64();
    text.lines().rev().find_map(step).unwrap_or(0)
}

/// The newest committed step, valid or not, of a store that may be changing; 0 if there is none.
pub fn newest_manifest(store: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(store.join("manifest")) else { return 0 };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.strip_suffix(".json")?.parse().ok()).max().unwrap_or(0)
}
