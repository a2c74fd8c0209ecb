//! Complete runs that save to an S3 server behind a proxy that fails by rule, and compete; and the commands for
//! checkpoints.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::common;
use crate::common::kill::kill_rank;
use crate::common::rig::{Rig, train_to_s3};
use crate::common::{
    buffers, buffers_in, check_same_bits, finish, losses, metrics, mpirun, newest_manifest, program, run, signal,
    start, succeed, train, verified, wait_for,
};

fn undisturbed(ranks: usize, steps: u64) -> TempDir {
    let dir = TempDir::new().unwrap();
    succeed(&mut train(ranks, dir.path(), steps, &["--set", "monitor.sample_every=0"]));
    dir
}

#[test]
fn every_save_commits_although_a_tenth_of_all_requests_fail() {
    let (mut rig, dir) = (Rig::start(), TempDir::new().unwrap());
    rig.set_rules(r#"[{"percent": 10, "fault": {"refuse": {"status": 503, "code": "SlowDown"}}}]"#);
    let outcome = succeed(&mut train_to_s3(&rig, 2, dir.path(), 12, &[]));
    assert_eq!(outcome.stderr.matches("saved step").count(), 3, "steps 5, 10 and 12: {}", outcome.stderr);
    let outcome = succeed(&mut train_to_s3(&rig, 2, dir.path(), 20, &[]));
    assert!(outcome.stderr.contains("resuming from step 12"), "{}", outcome.stderr);
    let straight = undisturbed(2, 20);
    check_same_bits("through S3", &buffers_in(&rig.bucket().join("run"), 20), &buffers(straight.path(), 20));
    assert_eq!(losses(dir.path()), losses(straight.path()));
    assert_eq!(verified(&rig.bucket().join("run"))[0], 20);
}

#[test]
fn a_lost_response_to_the_manifest_is_one_commit_and_not_a_missed_one() {
    let (mut rig, dir) = (Rig::start(), TempDir::new().unwrap());
    rig.set_rules(r#"[{"op": "PutObject", "key": "manifest/", "times": 1, "fault": "lose_answer"}]"#);
    let outcome = succeed(&mut train_to_s3(&rig, 2, dir.path(), 10, &[]));
    assert_eq!(outcome.stderr.matches("saved step").count(), 2, "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("warning:"), "{}", outcome.stderr);
    assert_eq!(verified(&rig.bucket().join("run")), [10, 5]);
}

#[test]
fn a_store_that_refuses_to_list_is_an_error_and_not_a_fresh_start() {
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
fn failing_uploads_of_one_rank_leave_no_manifest_and_training_continues() {
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
    // The first has released the store: another takes it over immediately.
    let outcome = succeed(&mut train(1, first.path(), verified(&first.path().join("shared"))[0] + 1, &options));
    assert!(!outcome.stderr.contains("waiting"), "{}", outcome.stderr);
}

#[test]
fn a_relaunch_after_a_kill_waits_for_the_lease_without_a_watchdog_timeout() {
    let dir = TempDir::new().unwrap();
    let options = ["--set", "checkpoint.every=5", "--set", "checkpoint.lease_s=6", "--set", "comm.timeout_s=3"];
    let child = start(&mut train(2, dir.path(), 1_000_000, &options));
    wait_for(|| newest_manifest(&dir.path().join("checkpoints")) > 0);
    assert!(kill_rank(child.id(), 1));
    assert_ne!(finish(child).code, 0);
    let newest = verified(&dir.path().join("checkpoints"))[0];
    let outcome = succeed(&mut train(2, dir.path(), newest + 3, &options));
    assert!(outcome.stderr.contains("was killed; waiting"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(&format!("resuming from step {newest}")), "{}", outcome.stderr);
}

/// Options of a job whose lease lasts for an hour if it is killed.
const HOUR: [&str; 4] = ["--set", "checkpoint.lease_s=3600", "--set", "checkpoint.every=5"];

/// `checkpoints unlock` of a run.
fn unlock(dir: &Path, more: &[&str]) -> common::Outcome {
    run(program().args(["checkpoints", "unlock"]).arg(dir).args(more))
}

#[test]
fn a_store_held_by_a_killed_job_can_be_freed() {
    let dir = TempDir::new().unwrap();
    assert_eq!(unlock(dir.path(), &[]).code, 0, "no job holds an empty folder");
    let child = start(&mut train(2, dir.path(), 1_000_000, &HOUR));
    wait_for(|| newest_manifest(&dir.path().join("checkpoints")) > 0);
    assert!(kill_rank(child.id(), 0));
    assert_ne!(finish(child).code, 0);
    let newest = verified(&dir.path().join("checkpoints"))[0];
    let outcome = unlock(dir.path(), &[]);
    assert_eq!(outcome.code, 3, "{}", outcome.stderr);
    for part in ["smoke (process ", " has held ", "last renewed the lease ", "runs for another 59 min", "add --force"] {
        assert!(outcome.stderr.contains(part), "no {part:?} in {}", outcome.stderr);
    }
    let outcome = unlock(dir.path(), &["--force"]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stdout.contains("freed ") && outcome.stdout.contains("smoke (process "), "{}", outcome.stdout);
    assert!(unlock(dir.path(), &[]).stdout.contains("no job holds"));
    let outcome = succeed(&mut train(2, dir.path(), newest + 3, &HOUR));
    assert!(outcome.stderr.contains(&format!("resuming from step {newest}")), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("waiting"), "{}", outcome.stderr);
}

#[test]
fn a_live_job_whose_store_is_freed_no_longer_commits() {
    let dir = TempDir::new().unwrap();
    let store = dir.path().join("checkpoints");
    let child = start(&mut train(2, dir.path(), 1_000_000, &HOUR));
    wait_for(|| newest_manifest(&store) > 0);
    assert_eq!(unlock(dir.path(), &["--force"]).code, 0);
    let outcome = finish(child);
    assert_eq!(outcome.code, 3, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("is now held by nobody (freed by checkpoints unlock)"), "{}", outcome.stderr);
    let newest = verified(&store)[0];
    assert_eq!(newest, newest_manifest(&store));
    let outcome = succeed(&mut train(2, dir.path(), newest + 3, &HOUR));
    assert!(outcome.stderr.contains(&format!("resuming from step {newest}")), "{}", outcome.stderr);
}

#[test]
fn a_job_whose_folder_is_deleted_reports_it() {
    let dir = TempDir::new().unwrap();
    let run_dir = dir.path().join("run");
    let child = start(&mut train(2, &run_dir, 1_000_000, &["--set", "checkpoint.every=5"]));
    wait_for(|| newest_manifest(&run_dir.join("checkpoints")) > 0);
    // Atomically, unlike `rm -r` while files are being written.
    std::fs::rename(&run_dir, dir.path().join("gone")).unwrap();
    let outcome = finish(child);
    assert_eq!(outcome.code, 4, "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("error: the store was deleted while this run was writing to"),
        "{}",
        outcome.stderr
    );
    assert!(!outcome.stderr.contains("now held by"), "{}", outcome.stderr);
}

#[test]
fn copies_to_another_runs_store_are_refused_and_dropped_steps_are_gone() {
    let dir = TempDir::new().unwrap();
    let (ours, theirs, backup) = (dir.path().join("ours"), dir.path().join("theirs"), dir.path().join("backup"));
    let quiet = ["--set", "monitor.sample_every=0", "--set", "checkpoint.keep_last=9"];
    succeed(&mut train(1, &ours, 20, &quiet));
    succeed(&mut train(1, &theirs, 30, &[&quiet[..], &["--set", "seed=1"]].concat()));
    let checkpoints = |args: &[&str]| run(program().arg("checkpoints").args(args));
    let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let (ours, theirs, backup) = (text(&ours), text(&theirs), text(&backup));
    for to in [&ours, &format!("{ours}/checkpoints")] {
        let outcome = checkpoints(&["copy", &theirs, "--to", to]);
        assert_eq!(outcome.code, 3, "{}", outcome.stderr);
        assert!(outcome.stderr.contains("seed: 0 there, 1 here"), "{}", outcome.stderr);
    }
    // A backup belongs to one run, and can be restored to it.
    assert_eq!(checkpoints(&["copy", &ours, "--to", &backup, "--step", "10"]).code, 0);
    assert_eq!(checkpoints(&["copy", &ours, "--to", &backup]).code, 0);
    assert_eq!(checkpoints(&["copy", &theirs, "--to", &backup]).code, 3);
    let dropped = checkpoints(&["drop", &ours, "--step", "20"]);
    assert_eq!(dropped.code, 0, "{}", dropped.stderr);
    assert!(
        dropped.stdout.contains("the newest valid checkpoint in ") && dropped.stdout.contains("is of step 10"),
        "{}",
        dropped.stdout
    );
    assert_eq!(verified(&Path::new(&ours).join("checkpoints")), [10]);
    assert_eq!(std::fs::read_dir(Path::new(&ours).join("checkpoints/ckpt")).unwrap().count(), 1);
    let outcome = succeed(&mut train(1, Path::new(&ours), 15, &quiet));
    assert!(outcome.stderr.contains("resuming from step 10"), "{}", outcome.stderr);
    assert_eq!(checkpoints(&["copy", &backup, "--to", &ours]).code, 0);
    let outcome = succeed(&mut train(1, Path::new(&ours), 22, &quiet));
    assert!(outcome.stderr.contains("resuming from step 20"), "{}", outcome.stderr);
}

#[test]
fn a_store_in_use_accepts_no_copies_and_no_deletions() {
    let dir = TempDir::new().unwrap();
    let (busy, other) = (dir.path().join("busy"), dir.path().join("other"));
    succeed(&mut train(1, &other, 10, &[]));
    let child = start(&mut train(1, &busy, 1_000_000, &HOUR));
    wait_for(|| newest_manifest(&busy.join("checkpoints")) >= 10);
    for args in [["copy", other.to_str().unwrap(), "--to"], ["drop", "--step", "10"]] {
        let outcome = run(program().arg("checkpoints").args(args).arg(&busy));
        assert_eq!(outcome.code, 3, "{}", outcome.stderr);
        assert!(outcome.stderr.contains("is being written by smoke (process "), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("checkpoints unlock"), "{}", outcome.stderr);
    }
    assert!(signal("INT", child.id()));
    assert_eq!(finish(child).code, 75);
}

#[test]
fn a_refused_start_releases_the_lease() {
    let dir = TempDir::new().unwrap();
    succeed(&mut train(2, dir.path(), 5, &[]));
    let outcome = run(&mut train(2, dir.path(), 10, &["--set", "data.count=500"]));
    assert_eq!(outcome.code, 3, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("data.count (checkpoint 512, now 500)"), "{}", outcome.stderr);
    let outcome = succeed(&mut train(2, dir.path(), 10, &[]));
    assert!(!outcome.stderr.contains("waiting"), "{}", outcome.stderr);
}

#[test]
fn a_diverged_final_state_is_a_failure() {
    let dir = TempDir::new().unwrap();
    let options = ["--set", "train.lr=1e30", "--set", "train.grad_clip=0", "--set", "train.skip_nonfinite=100"];
    let outcome = run(&mut train(2, dir.path(), 6, &options));
    assert_eq!(outcome.code, 5, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("is not saved, because its gradient was not finite"), "{}", outcome.stderr);
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
fn the_checkpoint_benchmark_leaves_the_bucket_unchanged() {
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
