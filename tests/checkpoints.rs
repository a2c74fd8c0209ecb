//! Whole runs that save to an S3 server through a proxy that fails by rule, are killed at random, and compete.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{buffers, check_same_bits, finish, losses, metrics, mpirun, program, run, signal, start, succeed, train};
use ddpm_checkpoint::Store;
use tempfile::TempDir;

/// An S3 server on a directory of its own, behind a proxy that fails by rule.
struct Rig {
    child: Child,
    rules: ChildStdin,
    endpoint: String,
    /// Where the server keeps its buckets.
    root: TempDir,
}

impl Rig {
    fn start() -> Self {
        let root = TempDir::new().unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_ddpm-dist")).with_file_name("examples").join("fault_rig");
        assert!(program.is_file(), "{} is not built; run the tests of the whole workspace", program.display());
        let mut child = Command::new(program)
            .args([root.path().to_str().unwrap(), "0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut endpoint = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut endpoint).unwrap();
        let rules = child.stdin.take().unwrap();
        Self { child, rules, endpoint: endpoint.trim().into(), root }
    }

    fn set_rules(&mut self, rules: &str) {
        writeln!(self.rules, "{rules}").unwrap();
        // The server does not answer; it reads at once.
        thread::sleep(Duration::from_millis(100));
    }

    /// Points a command at the server.
    fn serve<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "rig")
            .env("AWS_SECRET_ACCESS_KEY", "rig-secret")
    }

    /// The bucket's folder, which holds the same objects as a local store.
    fn bucket(&self) -> PathBuf {
        self.root.path().join("bucket")
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `train` into `dir`, saving every 5 steps to `s3://bucket/run`.
fn train_to_s3(rig: &Rig, ranks: usize, dir: &Path, steps: u64, more: &[&str]) -> Command {
    let mut command = train(ranks, dir, steps, &["--set", "checkpoint.uri=s3://bucket/run"]);
    command.args(["--set", "checkpoint.every=5", "--set", "monitor.sample_every=0"]).args(more);
    rig.serve(&mut command);
    command
}

/// Fails unless every committed checkpoint verifies; gives their steps, newest first.
fn verified(store: &Path) -> Vec<u64> {
    let store = Store::open_existing(store.to_str().unwrap()).unwrap();
    let steps = store.list().unwrap();
    for step in &steps {
        let report = store.verify(*step).unwrap();
        assert!(report.faults.is_empty(), "step {step}: {:?}", report.faults);
    }
    steps
}

fn undisturbed(ranks: usize, steps: u64) -> TempDir {
    let dir = TempDir::new().unwrap();
    succeed(&mut train(ranks, dir.path(), steps, &["--set", "monitor.sample_every=0"]));
    dir
}

fn buffers_in(store: &Path, step: u64) -> std::collections::BTreeMap<String, Vec<u32>> {
    let dir = TempDir::new().unwrap();
    std::os::unix::fs::symlink(store, dir.path().join("checkpoints")).unwrap();
    buffers(dir.path(), step)
}

#[test]
fn every_save_commits_though_a_tenth_of_all_requests_fail() {
    let (mut rig, dir) = (Rig::start(), TempDir::new().unwrap());
    rig.set_rules(r#"[{"percent": 10, "fault": {"refuse": {"status": 503, "code": "SlowDown"}}}]"#);
    let outcome = succeed(&mut train_to_s3(&rig, 2, dir.path(), 12, &[]));
    assert_eq!(outcome.stderr.matches("saved step").count(), 3, "steps 5, 10 and 12: {}", outcome.stderr);
    let outcome = succeed(&mut train_to_s3(&rig, 2, dir.path(), 20, &[]));
    assert!(outcome.stderr.contains("going on from step 12"), "{}", outcome.stderr);
    let straight = undisturbed(2, 20);
    check_same_bits("through S3", &buffers_in(&rig.bucket().join("run"), 20), &buffers(straight.path(), 20));
    assert_eq!(losses(dir.path()), losses(straight.path()));
    assert_eq!(verified(&rig.bucket().join("run"))[0], 20);
}

#[test]
fn a_lost_answer_to_the_manifest_is_one_commit_and_no_false_loss() {
    let (mut rig, dir) = (Rig::start(), TempDir::new().unwrap());
    rig.set_rules(r#"[{"op": "PutObject", "key": "manifest/", "times": 1, "fault": "lose_answer"}]"#);
    let outcome = succeed(&mut train_to_s3(&rig, 2, dir.path(), 10, &[]));
    assert_eq!(outcome.stderr.matches("saved step").count(), 2, "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("warning:"), "{}", outcome.stderr);
    assert_eq!(verified(&rig.bucket().join("run")), [10, 5]);
}

#[test]
fn a_store_that_refuses_to_list_is_an_error_and_never_a_fresh_start() {
    let (mut rig, dir) = (Rig::start(), TempDir::new().unwrap());
    succeed(&mut train_to_s3(&rig, 1, dir.path(), 5, &[]));
    let before = metrics(dir.path());
    rig.set_rules(r#"[{"op": "ListObjectsV2", "fault": {"refuse": {"status": 403, "code": "AccessDenied"}}}]"#);
    let outcome = run(&mut train_to_s3(&rig, 1, dir.path(), 10, &[]));
    assert_eq!(outcome.code, 4, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("error: the store s3://bucket/run failed to list"), "{}", outcome.stderr);
    assert_eq!(metrics(dir.path()), before);
}

#[test]
fn one_ranks_failing_uploads_leave_no_manifest_and_training_goes_on() {
    let (mut rig, dir) = (Rig::start(), TempDir::new().unwrap());
    // The shards of rank 1, in every attempt at step 5.
    let rule = r#"[{"key": "r00001-of", "times": 1, "fault": {"refuse": {"status": 403, "code": "AccessDenied"}}}]"#;
    rig.set_rules(rule);
    let outcome = succeed(&mut train_to_s3(&rig, 2, dir.path(), 12, &[]));
    assert!(outcome.stderr.contains("warning: step 5 is not saved (1 checkpoints missed"), "{}", outcome.stderr);
    assert_eq!(verified(&rig.bucket().join("run")), [12, 10]);
}

#[test]
fn a_second_job_on_the_same_store_is_refused() {
    let (first, second) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let uri = format!("checkpoint.uri={}", first.path().join("shared").display());
    let options = ["--set", &uri, "--set", "checkpoint.lease_s=2", "--set", "checkpoint.every=1000000"];
    let child = start(&mut train(1, first.path(), 1_000_000, &options));
    wait_for(|| first.path().join("metrics.jsonl").is_file());
    let outcome = run(&mut train(1, second.path(), 10, &options));
    assert_eq!(outcome.code, 3, "{}", outcome.stderr);
    assert!(!second.path().join("metrics.jsonl").exists());
    assert!(signal("INT", child.id()));
    assert_eq!(finish(child).code, 75);
    // The first has given the store back: another takes it over at once.
    let outcome = succeed(&mut train(1, first.path(), verified(&first.path().join("shared"))[0] + 1, &options));
    assert!(!outcome.stderr.contains("waiting"), "{}", outcome.stderr);
}

#[test]
fn a_relaunch_after_a_kill_waits_for_the_lease_and_no_rank_takes_another_for_frozen() {
    let dir = TempDir::new().unwrap();
    let options = ["--set", "checkpoint.every=5", "--set", "checkpoint.lease_s=6", "--set", "comm.timeout_s=3"];
    let child = start(&mut train(2, dir.path(), 1_000_000, &options));
    wait_for(|| dir.path().join("checkpoints/manifest").is_dir());
    assert!(kill_rank(child.id(), 1));
    assert_ne!(finish(child).code, 0);
    let newest = verified(&dir.path().join("checkpoints"))[0];
    let outcome = succeed(&mut train(2, dir.path(), newest + 3, &options));
    assert!(outcome.stderr.contains("was killed; waiting"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(&format!("going on from step {newest}")), "{}", outcome.stderr);
}

#[test]
fn a_refused_start_gives_the_lease_back() {
    let dir = TempDir::new().unwrap();
    succeed(&mut train(2, dir.path(), 5, &[]));
    let outcome = run(&mut train(2, dir.path(), 10, &["--set", "data.count=500", "--allow-change", "data.count"]));
    assert_eq!(outcome.code, 3, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("the data set has 500 images, but had 512"), "{}", outcome.stderr);
    let outcome = succeed(&mut train(2, dir.path(), 10, &[]));
    assert!(!outcome.stderr.contains("waiting"), "{}", outcome.stderr);
}

#[test]
fn a_last_state_that_diverged_is_a_failure_and_not_a_finish() {
    let dir = TempDir::new().unwrap();
    let options = ["--set", "train.lr=1e30", "--set", "train.grad_clip=0", "--set", "train.skip_nonfinite=100"];
    let outcome = run(&mut train(2, dir.path(), 6, &options));
    assert_eq!(outcome.code, 5, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("is not saved, because its gradient was not finite"), "{}", outcome.stderr);
}

/// A random rank is killed at a random time, again and again, until the run is done: what is left is what an undisturbed
/// run leaves, bit for bit.
fn check_chaos(seed: u64) {
    const STEPS: u64 = 200;
    const EVERY: u64 = 10;
    let straight = undisturbed(2, STEPS);
    let dir = TempDir::new().unwrap();
    let store = dir.path().join("checkpoints");
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = |below: u64| {
        // xorshift64
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let options = ["--set", "checkpoint.every=10", "--set", "checkpoint.lease_s=1", "--set", "monitor.sample_every=0"];
    let mut kills = 0;
    loop {
        let newest = if store.exists() { verified(&store).first().copied().unwrap_or(0) } else { 0 };
        let logged = |dir: &Path| metrics_tail(dir);
        let child = start(&mut train(2, dir.path(), STEPS, &options));
        let life = Duration::from_millis(300 + draw(2500));
        let victim = draw(2);
        let started = Instant::now();
        let pid = child.id();
        let killer = thread::spawn(move || {
            thread::sleep(life);
            kill_rank(pid, victim)
        });
        let outcome = finish(child);
        let killed = killer.join().unwrap();
        if outcome.code == 0 {
            break;
        }
        assert!(killed, "failed unkilled: {}", outcome.stderr);
        assert!(started.elapsed() < life + Duration::from_secs(10), "took {:?} to end", started.elapsed());
        kills += 1;
        assert!(kills < 60, "no progress: {}", outcome.stderr);
        let steps = verified(&store);
        if let Some(reached) = logged(dir.path()) {
            let saved = steps.first().copied().unwrap_or(0);
            assert!(saved >= newest, "step {newest} was committed and is lost");
            assert!(reached <= saved + 2 * EVERY, "at step {reached} only {saved} was saved");
        }
    }
    check_same_bits(
        &format!("seed {seed}, {kills} kills"),
        &buffers(dir.path(), STEPS),
        &buffers(straight.path(), STEPS),
    );
    assert_eq!(losses(dir.path()), losses(straight.path()));
    verified(&store);
}

/// The last whole line's step.
fn metrics_tail(dir: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(dir.join("metrics.jsonl")).ok()?;
    let step = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?["step"].as_u64();
    text.lines().rev().find_map(step)
}

/// Kills the `victim`-th rank below the launcher with SIGKILL; whether there was one.
fn kill_rank(launcher: u32, victim: u64) -> bool {
    // local.sh starts mpirun (through setsid), which starts the ranks.
    let ranks: Vec<u32> = children(launcher).into_iter().flat_map(children).collect();
    let Some(rank) = ranks.get(victim as usize) else { return false };
    signal("KILL", *rank)
}

/// Processes that `parent` started, oldest first.
fn children(parent: u32) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_child = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name in parentheses may hold anything; state and parent follow it.
        stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok()) == Some(parent)
    };
    let mut children: Vec<u32> = pids.filter(is_child).collect();
    children.sort_unstable();
    children
}

#[test]
fn killed_ranks_cost_steps_but_never_the_run() {
    // scripts/chaos.sh runs more seeds by this variable.
    let seeds = std::env::var("DDPM_CHAOS_SEEDS").unwrap_or_else(|_| "1-2".into());
    let (first, last) = seeds.split_once('-').expect("DDPM_CHAOS_SEEDS is FIRST-LAST");
    for seed in first.parse().unwrap()..=last.parse::<u64>().unwrap() {
        check_chaos(seed);
    }
}

fn wait_for(mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(60), "waited for a minute");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn checkpoints_are_listed_shown_verified_copied_and_pruned() {
    let dir = TempDir::new().unwrap();
    let rig = Rig::start();
    succeed(&mut train(2, dir.path(), 20, &["--set", "checkpoint.every=5", "--set", "checkpoint.keep_last=9"]));
    let run_dir = dir.path().to_str().unwrap();
    let checkpoints = |args: &[&str]| {
        let mut command = program();
        rig.serve(&mut command).args(["checkpoints", "--json"]).args(args);
        run(&mut command)
    };
    let lines = |outcome: &common::Outcome| -> Vec<serde_json::Value> {
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let listed = lines(&checkpoints(&["list", run_dir]));
    let steps = |rows: &[serde_json::Value]| rows.iter().map(|r| r["step"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(steps(&listed), [20, 15, 10, 5]);
    assert_eq!((listed[0]["images"].as_u64(), listed[0]["ranks"].as_u64()), (Some(320), Some(2)));
    assert_eq!(lines(&checkpoints(&["show", run_dir, "--step", "10"]))[0]["position"].as_u64(), Some(160));

    lines(&checkpoints(&["copy", run_dir, "--to", "s3://bucket/copy"]));
    assert_eq!(steps(&lines(&checkpoints(&["verify", "s3://bucket/copy"]))), [20]);
    check_same_bits("the copy", &buffers_in(&rig.bucket().join("copy"), 20), &buffers(dir.path(), 20));
    let mut sample = mpirun(2);
    rig.serve(sample.args(["sample", "-n", "2", "--steps", "2", "--model", "s3://bucket/copy@20", "--out"]));
    succeed(sample.arg(dir.path().join("copy.png")));

    let pruned = lines(&checkpoints(&["prune", run_dir, "--keep-last", "2", "--dry-run"]));
    assert_eq!(pruned[0]["deleted"].as_array().unwrap().len(), 2);
    lines(&checkpoints(&["prune", run_dir, "--keep-last", "2"]));
    assert_eq!(verified(&dir.path().join("checkpoints")), [20, 15]);

    let shard = std::fs::read_dir(dir.path().join("checkpoints/ckpt")).unwrap().next().unwrap().unwrap().path();
    let shard = shard.join("r00001-of-00002.safetensors");
    let mut bytes = std::fs::read(&shard).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&shard, bytes).unwrap();
    let outcome = checkpoints(&["verify", run_dir]);
    assert_eq!(outcome.code, 4, "{}", outcome.stdout);
    assert_eq!(outcome.stdout.matches("SHA-256").count(), 1, "{}", outcome.stdout);
}

#[test]
fn the_benchmark_of_checkpoints_leaves_the_bucket_as_it_was() {
    let rig = Rig::start();
    let kept = rig.bucket().join("bench/kept");
    std::fs::create_dir_all(kept.parent().unwrap()).unwrap();
    std::fs::write(&kept, "a user's").unwrap();
    let mut command = mpirun(2);
    command.args([
        "bench",
        "checkpoint",
        "--config",
        "smoke",
        "--repeat",
        "2",
        "--json",
        "--uri",
        "s3://bucket/bench/",
    ]);
    let report: serde_json::Value = serde_json::from_str(&succeed(rig.serve(&mut command)).stdout).unwrap();
    assert!(report["upload_mb_s"].as_f64().unwrap() > 0.0, "{report}");
    assert_eq!(files(&rig.bucket()), [kept]);
}

/// The files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
