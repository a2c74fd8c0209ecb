//! Runs that cannot continue: because of their checkpoints, their store, or their loss.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Case, PLAIN, check, text};
use crate::common::{program, succeed};

/// A run of the smoke preset with checkpoints of steps 10 and 20.
pub fn train_smoke(dir: &Path, more: &str) {
    let line = format!("train --config smoke --steps 20 --set run.dir={} {PLAIN} {more}", text(dir));
    succeed(program().args(line.split_whitespace()));
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The only shard of the checkpoint of `step`.
fn shard(run: &Path, step: u64) -> PathBuf {
    let folders = fs::read_dir(run.join("checkpoints/ckpt")).unwrap().map(|entry| entry.unwrap().path());
    let name = format!("{step:012}-");
    let mut folders = folders.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&name));
    let folder = folders.next().unwrap();
    fs::read_dir(folder).unwrap().next().unwrap().unwrap().path()
}

pub fn manifest(run: &Path, step: u64) -> PathBuf {
    run.join(format!("checkpoints/manifest/{step:012}.json"))
}

/// Deletes all checkpoints except that of step 20.
fn keep_newest(run: &Path) {
    fs::remove_file(manifest(run, 10)).unwrap();
}

fn flip_a_bit(run: &Path) {
    let path = shard(run, 20);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// The advice if a change cannot be allowed.
const OWN: &str = "Set them back, or start in another run.dir (--set run.dir=...).";

#[test]
fn resuming() {
    let base = TempDir::new().unwrap();
    train_smoke(base.path(), "");
    type Harm = fn(&Path);
    let cases: &[(Harm, Case)] = &[
        (|_| (), ("--set seed=7", 3, "seed (checkpoint 0, now 7)", "resume anyway with --allow-change seed.")),
        // Changes that cannot be allowed are not offered.
        (
            |_| (),
            (
                "--set train.global_batch=8",
                3,
                "cannot change within a run: train.global_batch (checkpoint 16, now 8)",
                OWN,
            ),
        ),
        (
            |_| (),
            (
                "--set train.global_batch=8 --allow-change train.global_batch",
                3,
                "cannot change within a run: train.global_batch (checkpoint 16, now 8)",
                OWN,
            ),
        ),
        (
            |_| (),
            (
                "--set model.channels=[8,8] --set seed=7 --set model.dropout=0.5",
                3,
                "cannot change within a run: model.channels (checkpoint [8,16], now [8,8]), because the network",
                OWN,
            ),
        ),
        (
            |_| (),
            (
                "--set model.channels=[8,8] --allow-change model.channels",
                3,
                "cannot change within a run: model.channels (checkpoint [8,16], now [8,8]), because the network",
                OWN,
            ),
        ),
        (
            |_| (),
            (
                "--set diffusion.variance=learned_range --set diffusion.loss=hybrid",
                3,
                "cannot change within a run: diffusion.variance (checkpoint \"fixed_small\", now \"learned_range\"), because",
                OWN,
            ),
        ),
        (
            |_| (),
            (
                "--set data.channels=3",
                3,
                "cannot change within a run: data.channels (checkpoint 1, now 3), because",
                OWN,
            ),
        ),
        (
            |_| (),
            (
                "--set model.norm_groups=2 --set diffusion.predict=v",
                3,
                "diffusion.predict (checkpoint \"eps\", now \"v\"); model.norm_groups (checkpoint 4, now 2)",
                "--allow-change diffusion.predict --allow-change model.norm_groups.",
            ),
        ),
        (|_| (), ("--resume 7", 3, "a checkpoint of step 7 is not in", "Name one that is there")),
        (|_| (), ("--resume never", 3, "holds checkpoints up to step 20", "--resume auto")),
        (|_| (), ("--set checkpoint.uri=ftp://host/run", 2, "ftp://host/run", "Give a directory")),
        (|_| (), ("--set checkpoint.uri=DIR/config.toml", 4, "config.toml failed", "Check that it is reachable")),
        (|_| (), ("--set run.dir=DIR/config.toml/run", 4, "config.toml/run", "Check that it is reachable")),
        (flip_a_bit, ("--resume 20", 4, "is damaged: ", "resume from an older step")),
        (
            |run| {
                keep_newest(run);
                flip_a_bit(run);
            },
            ("", 4, "no checkpoint in", "Restore one from a copy"),
        ),
        (
            |run| {
                keep_newest(run);
                fs::remove_file(shard(run, 20)).unwrap();
            },
            ("", 4, "it is missing", "Restore one from a copy"),
        ),
        (
            |run| {
                keep_newest(run);
                fs::write(manifest(run, 20), "garbage").unwrap();
            },
            ("", 4, "does not match its checksum", "Restore one from a copy"),
        ),
        (
            |run| {
                fs::remove_dir_all(run.join("checkpoints")).unwrap();
                fs::write(run.join("checkpoints"), "a file").unwrap();
            },
            ("", 4, "checkpoints failed to open its directory", "Check that it is reachable"),
        ),
        (|run| fs::write(run.join("checkpoints/run.json"), "garbage").unwrap(), ("", 4, "run.json", "Restore it")),
    ];
    for (harm, case) in cases {
        let dir = TempDir::new().unwrap();
        copy(base.path(), dir.path());
        harm(dir.path());
        let before = fs::read_dir(dir.path().join("checkpoints/manifest")).map(Iterator::count).ok();
        check(dir.path(), &format!("train --config smoke --set run.dir=DIR --steps 30 {PLAIN}"), &[*case]);
        let after = fs::read_dir(dir.path().join("checkpoints/manifest")).map(Iterator::count).ok();
        assert_eq!(before, after, "{case:?} changed the checkpoints");
    }
}

#[test]
fn a_step_is_only_rewound_by_a_run_that_continues() {
    let dir = TempDir::new().unwrap();
    train_smoke(dir.path(), "");
    let resume = format!("train --config smoke --set run.dir=DIR --steps 30 --resume 10 {PLAIN}");
    let change = "--allow-change data.kind --allow-change data.path --set data.kind=idx --set data.path=DIR/absent";
    let case = ("", 4, "absent: cannot be read", "Check that the path is correct");
    check(dir.path(), &format!("{resume} {change}"), &[case]);
    assert!(manifest(dir.path(), 20).exists());
}

#[test]
fn a_store_that_fails_at_the_end_and_a_loss_that_diverges() {
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("full/checkpoints")).unwrap();
    fs::write(dir.path().join("full/checkpoints/ckpt"), "no room for shards").unwrap();
    let cases = [
        ("--set run.dir=DIR/full", 4, "the last step, 12, could not be saved", "fix the store and resume"),
        (
            "--set run.dir=DIR/wild --set train.lr=1e30 --set train.grad_clip=0.0 --set train.skip_nonfinite=2",
            5,
            "training diverged: ",
            "Lower train.lr",
        ),
    ];
    check(dir.path(), &format!("train --config smoke --steps 12 {PLAIN}"), &cases);
}
