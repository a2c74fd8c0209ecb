//! Complete runs whose store fails: an outage, broken connections, refused credentials, a full disk, damaged bytes, and
//! a second job that takes over the store.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::common::kill::tree;
use crate::common::rig::{Rig, train_to_s3};
use crate::common::{
    finish, last_logged, metrics, newest_manifest, run, signal, start, succeed, train, verified, wait_for,
};

/// Every request fails with 503.
const OUTAGE: &str = r#"[{"fault": {"refuse": {"status": 503, "code": "SlowDown"}}}]"#;

/// The number of checkpoints that a run has missed, according to the last line of `metrics.jsonl`.
fn missed(dir: &Path) -> u64 {
    let text = fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    let line = text.lines().rev().find_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    line.and_then(|line| line["ckpt_missed"].as_u64()).unwrap()
}

#[test]
fn training_continues_through_an_outage_and_counts_missed_checkpoints() {
    // DDPM_OUTAGE_S=60 makes the outage last a minute.
    let outage_s: u64 = std::env::var("DDPM_OUTAGE_S").map_or(6, |seconds| seconds.parse().unwrap());
    let (mut rig, dir) = (Rig::start(), TempDir::new().unwrap());
    let retry = format!("checkpoint.retry_s={}", outage_s.div_ceil(4));
    let options = ["--set", &retry, "--set", "monitor.tensorboard=false"];
    let child = start(&mut train_to_s3(&rig, 2, dir.path(), 1_000_000, &options));
    let store = rig.bucket().join("run");
    wait_for(|| newest_manifest(&store) > 0);
    rig.set_rules(OUTAGE);
    let (began, reached) = (Instant::now(), last_logged(dir.path()));
    thread::sleep(Duration::from_secs(outage_s));
    wait_for(|| missed(dir.path()) >= 2);
    assert!(last_logged(dir.path()) > reached, "training stood still for {:?}", began.elapsed());
    let saved = verified(&store)[0];
    rig.set_rules("[]");
    wait_for(|| newest_manifest(&store) > saved);
    assert!(signal("INT", child.id()));
    let outcome = finish(child);
    assert_eq!(outcome.code, 75, "{}", outcome.stderr);
    let counted: Vec<u64> = metrics(dir.path()).values().map(|line| line["ckpt_missed"].as_u64().unwrap()).collect();
    assert!(counted.is_sorted() && counted[0] == 0, "{counted:?}");
    let message = format!("({} checkpoints missed; the last checkpoint is of step {saved})", counted.last().unwrap());
    assert!(outcome.stderr.contains(&message), "no {message:?} in {}", outcome.stderr);
    assert_eq!(verified(&store)[0], last_logged(dir.path()), "the last save");
}

#[test]
fn an_outage_ends_a_run_configured_to_abort() {
    let (mut rig, dir) = (Rig::start(), TempDir::new().unwrap());
    let options = ["--set", "checkpoint.on_failure=abort", "--set", "checkpoint.retry_s=1"];
    let child = start(&mut train_to_s3(&rig, 2, dir.path(), 1_000_000, &options));
    wait_for(|| newest_manifest(&rig.bucket().join("run")) > 0);
    rig.set_rules(OUTAGE);
    let outcome = finish(child);
    assert_eq!(outcome.code, 4, "{}", outcome.stderr);
    let errors = outcome.stderr.lines().filter(|line| line.starts_with("error: "));
    assert_eq!(errors.count(), 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("the store s3://bucket/run failed to"), "{}", outcome.stderr);
    assert!(!verified(&rig.bucket().join("run")).is_empty());
}

#[test]
fn transient_faults_neither_lose_nor_duplicate_a_checkpoint() {
    let faults = [
        (
            "a connection reset in the middle of a part",
            r#"{"op": "UploadPart", "times": 2, "fault": {"cut_request": {"at": 100000}}}"#,
        ),
        (
            "an answer lost after a shard is complete",
            r#"{"op": "CompleteMultipartUpload", "times": 2, "fault": "lose_answer"}"#,
        ),
        ("1 MB/s", r#"{"fault": {"slow": {"bytes_per_s": 1000000}}}"#),
        ("429", r#"{"percent": 20, "fault": {"refuse": {"status": 429, "code": "TooManyRequests"}}}"#),
    ];
    for (name, rule) in faults {
        let (mut rig, dir) = (Rig::start(), TempDir::new().unwrap());
        rig.set_rules(&format!("[{rule}]"));
        let outcome = succeed(&mut train_to_s3(&rig, 2, dir.path(), 10, &[]));
        assert!(!outcome.stderr.contains("is not saved"), "{name}: {}", outcome.stderr);
        assert_eq!(outcome.stderr.matches("saved step").count(), 2, "{name}: {}", outcome.stderr);
        let store = rig.bucket().join("run");
        assert_eq!(verified(&store), [10, 5], "{name}");
        assert_eq!(fs::read_dir(store.join("ckpt")).unwrap().count(), 2, "{name}: an attempt was left behind");
        assert!(!store.join("aside").exists(), "{name}: a second commit");
    }
}

#[test]
fn a_slow_store_fails_the_save_within_its_timeout() {
    let (mut rig, dir) = (Rig::start(), TempDir::new().unwrap());
    // A rank's shard would take over a minute.
    rig.set_rules(r#"[{"op": "UploadPart", "fault": {"slow": {"bytes_per_s": 5000}}}]"#);
    let options = ["--set", "comm.timeout_s=5", "--set", "checkpoint.on_failure=abort"];
    let outcome = run(&mut train_to_s3(&rig, 2, dir.path(), 1_000_000, &options));
    assert_eq!(outcome.code, 4, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("the save of step 5 took over 5 s"), "{}", outcome.stderr);
    assert!(!rig.bucket().join("run/manifest").exists());
}

#[test]
fn refused_credentials_are_an_error_and_not_a_fresh_start() {
    let (mut rig, dir) = (Rig::start(), TempDir::new().unwrap());
    succeed(&mut train_to_s3(&rig, 1, dir.path(), 5, &[]));
    let before = metrics(dir.path());
    for (status, code) in [(400, "ExpiredToken"), (403, "RequestTimeTooSkewed")] {
        rig.set_rules(&format!(r#"[{{"fault": {{"refuse": {{"status": {status}, "code": "{code}"}}}}}}]"#));
        let outcome = run(&mut train_to_s3(&rig, 1, dir.path(), 10, &[]));
        assert_eq!(outcome.code, 4, "{}", outcome.stderr);
        assert!(outcome.stderr.contains("error: the store s3://bucket/run failed to list"), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(code), "{}", outcome.stderr);
        assert_eq!(metrics(dir.path()), before);
    }
    rig.set_rules("[]");
    let outcome = succeed(&mut train_to_s3(&rig, 1, dir.path(), 6, &[]));
    assert!(outcome.stderr.contains("resuming from step 5"), "{}", outcome.stderr);
}

/// Every file below a folder, with its content.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}

#[test]
fn a_job_frozen_past_its_lease_neither_commits_nor_deletes_when_it_continues() {
    let (rig, late, now) = (Rig::start(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let lease = ["--set", "checkpoint.lease_s=2"];
    let frozen = start(&mut train_to_s3(&rig, 2, late.path(), 1_000_000, &lease));
    let store = rig.bucket().join("run");
    wait_for(|| newest_manifest(&store) > 0);
    let processes = tree(frozen.id());
    assert!(processes.len() >= 4, "launcher, mpirun and two ranks: {processes:?}");
    assert!(processes.iter().all(|pid| signal("STOP", *pid)));
    let taken_over_at = verified(&store)[0];
    let until = taken_over_at + 30;
    let outcome = succeed(&mut train_to_s3(&rig, 1, now.path(), until, &["--set", "checkpoint.keep_last=100"]));
    assert!(outcome.stderr.contains("was killed; waiting"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(&format!("resuming from step {taken_over_at}")), "{}", outcome.stderr);
    let before = files(&store);

    assert!(processes.iter().all(|pid| signal("CONT", *pid)));
    let outcome = finish(frozen);
    assert_eq!(outcome.code, 3, "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("error: the lease on s3://bucket/run, generation 1, is now held by"),
        "{}",
        outcome.stderr
    );
    let after = files(&store);
    for (path, content) in &before {
        assert!(after.get(path) == Some(content), "{} was changed or deleted", path.display());
    }
    let added: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    let ours = |path: &&&PathBuf| path.starts_with(store.join("ckpt"));
    assert!(added.iter().all(|path| ours(&path)), "more than a shard that nobody names: {added:?}");
    assert_eq!(verified(&store)[0], until);
}

/// `command` with a private 2 MB disk mounted at `disk`, whose final contents are copied to `left`.
fn on_a_small_disk(command: &Command, disk: &Path, left: &Path) -> Command {
    let script = r#"mount -t tmpfs -o size=2m none "$0" || exit 99; disk=$0 left=$1; shift
        "$@"; code=$?; cp -r "$disk/." "$left" || exit 98; exit $code"#;
    let mut small = Command::new("unshare");
    small.args(["--user", "--map-root-user", "--mount", "bash", "-c", script]).arg(disk).arg(left);
    small.arg(command.get_program()).args(command.get_args()).current_dir(command.get_current_dir().unwrap());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => small.env(name, value),
            None => small.env_remove(name),
        };
    }
    small
}

#[test]
fn a_full_disk_leaves_the_older_checkpoints_intact() {
    for (policy, message, last) in [
        ("abort", "failed to write ckpt/", None),
        ("warn", "error: the last step, 30, could not be saved in ", Some(30)),
    ] {
        let (dir, disk, left) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
        let options = [
            format!("checkpoint.uri={}", disk.path().display()),
            format!("checkpoint.on_failure={policy}"),
            "checkpoint.every=5".into(),
            // Kept permanently, so that the disk fills up.
            "checkpoint.keep_every=5".into(),
        ];
        let sets: Vec<&str> = options.iter().flat_map(|option| ["--set", option]).collect();
        let outcome = run(&mut on_a_small_disk(&train(2, dir.path(), 30, &sets), disk.path(), left.path()));
        assert_ne!(outcome.code, 99, "no tmpfs: this test needs user namespaces: {}", outcome.stderr);
        assert_eq!(outcome.code, 4, "{policy}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(message) && outcome.stderr.contains("No space left"), "{}", outcome.stderr);
        let saved = verified(left.path());
        assert!(!saved.is_empty() && saved[0] < 30, "{saved:?}");
        assert_eq!(Some(last_logged(dir.path())).filter(|_| last.is_some()), last);
        assert_eq!(missed(dir.path()) > 0, last.is_some(), "{policy}");
    }
}

/// The shards of the checkpoint of a step, in the order of ranks.
fn shards(store: &Path, step: u64) -> Vec<PathBuf> {
    let folders = fs::read_dir(store.join("ckpt")).unwrap().map(|entry| entry.unwrap().path());
    let its = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(&format!("{step:012}-"));
    let mut shards: Vec<_> =
        folders.filter(its).flat_map(|folder| fs::read_dir(folder).unwrap()).collect::<Result<_, _>>().unwrap();
    shards.sort_by_key(fs::DirEntry::file_name);
    shards.iter().map(fs::DirEntry::path).collect()
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 16;
    fs::write(path, bytes).unwrap();
}

fn swap(one: &Path, other: &Path) {
    let (first, second) = (fs::read(one).unwrap(), fs::read(other).unwrap());
    fs::write(one, second).unwrap();
    fs::write(other, first).unwrap();
}

#[test]
fn a_damaged_checkpoint_is_reported_and_the_next_older_one_used() {
    let dir = TempDir::new().unwrap();
    let options = ["--set", "monitor.sample_every=0", "--set", "checkpoint.every=5"];
    succeed(&mut train(2, dir.path(), 10, &options));
    let manifest = Path::new("checkpoints/manifest/000000000010.json");
    let ours: Vec<PathBuf> = shards(&dir.path().join("checkpoints"), 10);
    let [first, second] = [&ours[0], &ours[1]].map(|path| path.strip_prefix(dir.path()).unwrap());
    type Harm<'a> = &'a dyn Fn(&Path);
    let harms: [(&str, &Path, Harm); 5] = [
        ("flipped", second, &|run| flip(&run.join(second))),
        ("truncated", second, &|run| {
            fs::File::options().write(true).open(run.join(second)).unwrap().set_len(1000).unwrap()
        }),
        ("missing", second, &|run| fs::remove_file(run.join(second)).unwrap()),
        ("swapped", first, &|run| swap(&run.join(first), &run.join(second))),
        ("a flipped manifest", manifest, &|run| flip(&run.join(manifest))),
    ];
    for (name, damaged, harm) in harms {
        let copy = TempDir::new().unwrap();
        assert!(Command::new("cp").arg("-r").arg(dir.path().join(".")).arg(copy.path()).status().unwrap().success());
        harm(copy.path());
        let outcome = succeed(&mut train(2, copy.path(), 11, &options));
        let damaged = damaged.strip_prefix("checkpoints").unwrap().to_str().unwrap();
        let line = outcome.stderr.lines().find(|line| line.contains("is damaged"));
        assert!(line.is_some_and(|line| line.contains(damaged)), "{name}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("resuming from step 5"), "{name}: {}", outcome.stderr);
        // Steps 6 to 10 were in the log, and were run again.
        assert!(metrics(copy.path()).keys().copied().eq(1..=11), "{name}");
        assert_eq!(verified(&copy.path().join("checkpoints"))[0], 11, "{name}");
    }
}
