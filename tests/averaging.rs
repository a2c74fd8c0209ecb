//! Averaging gradients over ranks while backward runs: bit-exactness, and ranks that stop responding.

use tempfile::TempDir;

use crate::common::kill::signal_rank;
use crate::common::{Outcome, buffers, check_same_bits, finish, losses, metrics, start, succeed, train, wait_for_step};

#[test]
fn overlap_does_not_change_a_bit() {
    for ranks in [2, 3] {
        let [beside, after] = ["true", "false"].map(|overlap| {
            let dir = TempDir::new().unwrap();
            let overlap = format!("comm.overlap={overlap}");
            let mut options = vec!["--set", &overlap];
            for option in
                ["train.global_batch=12", "train.micro_batch=2", "comm.bucket_mb=0.02", "monitor.sample_every=0"]
            {
                options.extend(["--set", option]);
            }
            let outcome = succeed(train(ranks, dir.path(), 8, &options).env("RUST_LOG", "ddpm=debug"));
            // With hooks, buckets are averaged as they become ready; without, nothing is averaged before backward ends.
            let early = if overlap == "comm.overlap=true" { 11 } else { 0 };
            let ready = format!("{early} of 11 buckets were ready during backward");
            assert_eq!(outcome.stderr.matches(&ready).count(), 8, "in each step, {ready}: {}", outcome.stderr);
            dir
        });
        check_same_bits("with overlap", &buffers(beside.path(), 8), &buffers(after.path(), 8));
        assert_eq!(losses(beside.path()), losses(after.path()));
        let [ours, theirs] = [&beside, &after].map(|dir| metrics(dir.path())[&8].clone());
        for key in ["grad_norm", "grad_noise_scale"] {
            assert_eq!(ours[key], theirs[key], "{key} on {ranks} ranks");
        }
    }
}

/// A run on three ranks whose rank 1 receives the signal in the middle of training.
fn disturbed(signal: &str) -> Outcome {
    let dir = TempDir::new().unwrap();
    // A step is almost entirely forward and backward, so the peers wait in a bucket.
    let options = ["--set", "train.global_batch=192", "--set", "comm.timeout_s=3", "--set", "checkpoint.every=100000"];
    let child = start(&mut train(3, dir.path(), 100_000, &options));
    wait_for_step(dir.path(), 3);
    assert!(signal_rank(signal, child.id(), 1));
    finish(child)
}

#[test]
fn a_frozen_rank_ends_the_run_and_is_reported() {
    let outcome = disturbed("STOP");
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    let lines = outcome.stderr.lines().filter(|line| line.contains(": waited 3 s in ")).collect::<Vec<_>>();
    assert!(!lines.is_empty(), "{}", outcome.stderr);
    for line in lines {
        assert!(line.starts_with("rank 0 step ") || line.starts_with("rank 2 step "), "{line}");
        assert!(line.contains("On this machine, rank 1 is "), "{line}");
        assert!(line.contains("raise comm.timeout_s"), "{line}");
    }
}

#[test]
fn a_killed_rank_ends_the_run_and_is_reported() {
    let outcome = disturbed("KILL");
    assert_eq!(outcome.code, 128 + 9, "{}", outcome.stderr);
    let named = outcome.stderr.lines().find(|line| line.contains("rank 1 was killed or crashed")).unwrap_or_default();
    assert!(named.starts_with("rank 0 step ") && named.contains("Its last status: "), "{}", outcome.stderr);
    assert!(named.contains(" of step "), "{named}");
}
