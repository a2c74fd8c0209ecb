//! Selecting: which checkpoint a run resumes from, and which it refuses.

use std::fs;
use std::path::Path;

use ddpm_config::Settings;
use ddpm_model::{Error, ErrorKind, Failure, Learner, Remedy};
use tempfile::tempdir;

use super::{Parts, collective, settings};
use crate::checkpointing::{ResumeFrom, Saver};
use crate::plan::Plan;
use crate::program::Program;
use crate::stop::StopRequest;

/// Saves steps 1 and 2 of a run in `dir`.
fn run(dir: &Path) {
    let mut parts = Parts::fresh(&collective(), settings(dir, &[]));
    let stop = StopRequest::default();
    let mut saver =
        Saver::open(&parts.comm, &parts.settings, parts.record(), None, None, &stop, &Program::default()).unwrap();
    for _ in 0..2 {
        parts.steps(1);
        saver.save_last(&parts.task.network, &parts.state).unwrap();
    }
}

fn plan(settings: Settings, from: ResumeFrom, allowed: &[&str]) -> Result<Option<u64>, Error> {
    let allowed: Vec<String> = allowed.iter().map(|key| (*key).to_owned()).collect();
    match Plan::resuming(collective().as_ref(), settings, from, &allowed, None) {
        Ok(plan) => Ok(plan.resume.map(|checkpoint| checkpoint.manifest.step)),
        Err(Failure::Agreed(agreed)) => Err(agreed.into_error()),
        Err(Failure::Alone(error)) => panic!("only one rank would know: {error}"),
    }
}

#[test]
fn the_newest_checkpoint_is_taken_unless_another_is_asked_for() {
    let dir = tempdir().unwrap();
    let of = |from| plan(settings(dir.path(), &[]), from, &[]);
    assert_eq!(of(ResumeFrom::Auto).unwrap(), None);
    assert_eq!(of(ResumeFrom::Step(1)).unwrap_err().kind(), ErrorKind::ResumeRefused);
    run(dir.path());
    assert_eq!(of(ResumeFrom::Auto).unwrap(), Some(2));
    assert_eq!(of(ResumeFrom::Step(1)).unwrap(), Some(1));
    let fresh = of(ResumeFrom::Never).unwrap_err();
    assert_eq!(fresh.kind(), ErrorKind::ResumeRefused);
    assert!(fresh.remedies().contains(&Remedy::OtherRunDir) && fresh.remedies().contains(&Remedy::Resume));
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let dir = tempdir().unwrap();
    run(dir.path());
    let shards: Vec<_> =
        walk(&dir.path().join("checkpoints")).into_iter().filter(|path| is_shard_of(path, 2)).collect();
    assert_eq!(shards.len(), 1, "{shards:?}");
    let mut bytes = fs::read(&shards[0]).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&shards[0], bytes).unwrap();
    assert_eq!(plan(settings(dir.path(), &[]), ResumeFrom::Auto, &[]).unwrap(), Some(1));
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

fn is_shard_of(path: &Path, step: u64) -> bool {
    let path = path.display().to_string();
    path.ends_with(".safetensors") && path.contains(&format!("{step:09}"))
}

#[test]
fn other_settings_are_refused_with_what_would_allow_them() {
    let dir = tempdir().unwrap();
    run(dir.path());
    let with = |more: &[&str], allowed: &[&str]| plan(settings(dir.path(), more), ResumeFrom::Auto, allowed);
    // Keys that do not affect what is learned may change.
    assert_eq!(with(&["monitor.log_every=7"], &[]).unwrap(), Some(2));
    let refused = with(&["ema.rates=[0.9,0.999]"], &[]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ResumeRefused);
    assert!(refused.remedies().contains(&Remedy::AllowChange(vec!["ema.rates".into()])), "{:?}", refused.remedies());
    assert_eq!(with(&["ema.rates=[0.9,0.999]"], &["ema.rates"]).unwrap(), Some(2));
    // Keys that determine the order of the images or the parameters of the network must never change.
    for fixed in ["train.global_batch=16", "model.channels=[8,16]"] {
        let refused = with(&[fixed], &["train.global_batch", "model.channels"]).unwrap_err();
        assert!(!refused.remedies().iter().any(|remedy| matches!(remedy, Remedy::AllowChange(_))), "{fixed}");
    }
    let classifier = with(&["model.kind=classifier", "model.classes=10"], &[]).unwrap_err();
    assert!(classifier.remedies().contains(&Remedy::ResumeAs(Learner::Diffusion)), "{classifier}");
}

#[test]
fn logs_without_their_store_are_not_overwritten() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("metrics.jsonl"), "{\"step\":1}\n").unwrap();
    let refused = plan(settings(dir.path(), &[]), ResumeFrom::Auto, &[]).unwrap_err();
    assert!(refused.remedies().contains(&Remedy::StartAfresh), "{refused}");
    assert_eq!(plan(settings(dir.path(), &[]), ResumeFrom::Never, &[]).unwrap(), None);
}

#[test]
fn checkpoints_that_the_run_would_not_see_are_named() {
    let dir = tempdir().unwrap();
    run(dir.path());
    let elsewhere = format!("checkpoint.uri={:?}", dir.path().join("other").display().to_string());
    let refused = plan(settings(dir.path(), &[&elsewhere]), ResumeFrom::Auto, &[]).unwrap_err();
    let there = dir.path().join("checkpoints").display().to_string();
    let remedy = Remedy::ResumeWith("checkpoint.uri".into(), there);
    assert!(refused.remedies().contains(&remedy), "{:?}", refused.remedies());
}
