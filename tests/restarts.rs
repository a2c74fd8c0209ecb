//! One run with many restarts: on different numbers of ranks, stopped and killed, with the logs and curves of a single
//! run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use ddpm_checkpoint::{Manifest, OwnedSlice, Pending, Store, nonce};
use ddpm_comm::partition;
use tempfile::TempDir;
use tensorboard_proto::event::SessionLog_SessionStatus;

use crate::common::kill::kill_rank;
use crate::common::tensorboard::{event_files, events};
use crate::common::{
    buffers, check_same_bits, finish, last_logged, losses, metrics, newest_manifest, signal, start, succeed, train,
    verified, wait_for,
};

const QUIET: [&str; 4] = ["--set", "monitor.sample_every=0", "--set", "monitor.tensorboard=false"];

/// Waits for a background task of the store.
fn outcome<T: Send + 'static>(mut pending: Pending<T>) -> T {
    loop {
        if let Some(done) = pending.poll() {
            return done.unwrap();
        }
        sleep(Duration::from_millis(1));
    }
}

/// Copies the checkpoint of `step` from the run in `from` to the one in `to`, in the shards that `world` ranks would
/// have written.
fn reshard(from: &Path, step: u64, to: &Path, world: usize) {
    let open = |dir: &Path| Store::open(dir.join("checkpoints").to_str().unwrap()).unwrap();
    let (from, to) = (open(from), open(to));
    let manifest = from.read_manifest(step).unwrap();
    let upload = |rank| {
        let slice = |buffer: &ddpm_checkpoint::BufferEntry| {
            let whole = from.load_buffer(&manifest, &buffer.name).unwrap();
            let range = partition(whole.len(), rank, world);
            OwnedSlice { name: buffer.name.clone(), data: whole[range.clone()].to_vec(), range }
        };
        let slices: Vec<_> = manifest.buffers.iter().map(slice).collect();
        outcome(to.start_upload(step, &manifest.attempt, rank, world, Box::new(|| Ok(slices))))
    };
    let manifest = Manifest { shards: (0..world).map(upload).collect(), nonce: nonce(), ..manifest.clone() };
    outcome(to.start_commit(manifest, None));
}

#[test]
fn a_run_continues_on_4_2_1_and_3_ranks_in_turn() {
    let options = [&QUIET[..], &["--set", "train.global_batch=12", "--set", "checkpoint.every=3"]].concat();
    let (dir, straight) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    succeed(&mut train(4, straight.path(), 12, &options));
    succeed(&mut train(4, dir.path(), 3, &options));
    for (ranks, until) in [(2, 6), (1, 9), (3, 12)] {
        // The same state, in as many shards as there are ranks, must give the same run: the loaded state does not
        // depend on the number of writers.
        let twin = TempDir::new().unwrap();
        reshard(dir.path(), until - 3, twin.path(), ranks);
        succeed(&mut train(ranks, twin.path(), until, &options));
        let outcome = succeed(&mut train(ranks, dir.path(), until, &options));
        assert!(outcome.stderr.contains(&format!("resuming from step {}", until - 3)));
        let what = format!("step {until}, by {ranks} ranks");
        check_same_bits(&what, &buffers(dir.path(), until), &buffers(twin.path(), until));
    }
    let (ours, theirs) = (losses(dir.path()), losses(straight.path()));
    assert_eq!(ours.len(), 12);
    for ((step, ours), (_, theirs)) in ours.into_iter().zip(theirs) {
        assert!((ours - theirs).abs() <= 1e-5 * theirs.abs(), "step {step}: {ours}, undisturbed {theirs}");
    }
}

/// The steps that TensorBoard shows for each tag of a run, and the number of points that it read: it reads the files of
/// a folder in the order of their names, and a session that starts at some step discards the earlier points from that
/// step on.
fn shown(run: &Path) -> (BTreeMap<String, Vec<i64>>, usize) {
    let (mut shown, mut read) = (BTreeMap::<String, Vec<i64>>::new(), 0);
    for file in event_files(run) {
        let bytes = fs::read(file).unwrap();
        for event in events(&bytes) {
            let step = event.get_step();
            if event.has_session_log() && event.get_session_log().get_status() == SessionLog_SessionStatus::START {
                shown.values_mut().for_each(|steps| steps.retain(|earlier| *earlier < step));
            }
            for value in event.get_summary().get_value() {
                shown.entry(value.get_tag().into()).or_default().push(step);
                read += 1;
            }
        }
    }
    (shown, read)
}

#[test]
fn a_run_resumed_five_times_shows_each_step_once() {
    let dir = TempDir::new().unwrap();
    let options = ["checkpoint.every=20", "checkpoint.lease_s=1", "monitor.sample_every=7", "train.global_batch=4"];
    let options: Vec<&str> = options.into_iter().flat_map(|option| ["--set", option]).collect();
    let store = dir.path().join("checkpoints");
    let mut stopped = Vec::new();
    for life in 0..5 {
        let reached = last_logged(dir.path());
        let child = start(&mut train(2, dir.path(), 1_000_000, &options));
        if life % 2 == 0 {
            // Between two saves, so that steps are run again; the first time, before there is any.
            wait_for(|| newest_manifest(&store) + 9 <= last_logged(dir.path()));
            assert!(kill_rank(child.id(), 1));
            assert_ne!(finish(child).code, 0);
        } else {
            wait_for(|| last_logged(dir.path()) > reached + 15);
            assert!(signal("USR1", child.id()));
            assert_eq!(finish(child).code, 75);
            stopped.push(last_logged(dir.path()) as i64);
        }
    }
    let last = verified(&store)[0] + 10;
    succeed(&mut train(2, dir.path(), last, &options));

    assert!(metrics(dir.path()).keys().copied().eq(1..=last), "metrics.jsonl has gaps");
    let (shown, read) = shown(dir.path());
    let once = shown.values().map(Vec::len).sum::<usize>();
    assert!(read > once, "no step was run twice, so nothing was tested");
    assert!(shown["loss/total"].iter().copied().eq(1..=last as i64), "{:?}", shown["loss/total"]);
    for (tag, steps) in &shown {
        assert!(steps.is_sorted_by(|a, b| a < b), "{tag} stands twice at some step: {steps:?}");
    }
    // A run that was stopped or killed may go on, so only the last start says in the HPARAMS tab that it is complete.
    assert_eq!(shown["_hparams_/session_end_info"], [last as i64]);
    assert!(shown.contains_key("_hparams_/session_start_info"));
    // A run that is asked to stop skips the sample grid that is due.
    let grids: Vec<i64> = (1..=last as i64).filter(|step| step % 7 == 0 || *step == last as i64).collect();
    let drawn = |step: &&i64| shown["samples"].contains(step) || !stopped.contains(*step);
    assert!(shown["samples"].iter().eq(grids.iter().filter(drawn)), "{:?}, stopped at {stopped:?}", shown["samples"]);
}
