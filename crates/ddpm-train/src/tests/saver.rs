//! Saving: what the store contains afterwards, and how events that report failures are handled.

use std::thread;
use std::time::Duration;

use ddpm_checkpoint::{Store, Want};
use ddpm_config::Settings;
use ddpm_model::{Error, ErrorKind, Failure};
use tempfile::tempdir;

use super::{Parts, collective, settings};
use crate::checkpointing::{SaveEvent, Saver};
use crate::program::Program;
use crate::stop::StopRequest;

fn saver(parts: &Parts) -> Saver {
    Saver::open(&parts.comm, &parts.settings, parts.record(), None, None, &StopRequest::default(), &Program::default())
        .unwrap()
}

fn steps(settings: &Settings) -> Vec<u64> {
    Store::open_existing(&settings.checkpoint_uri()).unwrap().list().unwrap()
}

#[test]
fn a_save_goes_on_behind_the_steps_and_is_done_when_its_events_were_applied() {
    let (dir, comm) = (tempdir().unwrap(), collective());
    let mut parts = Parts::fresh(&comm, settings(dir.path(), &[]));
    let mut saver = saver(&parts);
    parts.steps(1);
    let saved = parts.numbers();
    saver.save(&parts.task.network, &parts.state).unwrap();
    assert_eq!(steps(&parts.settings), [] as [u64; 0]);
    parts.steps(1);
    let (mut written, mut committed) = (false, false);
    while !committed {
        let event = saver.poll();
        written |= matches!(event, Some(SaveEvent::Written(_)));
        committed = matches!(event, Some(SaveEvent::Committed));
        saver.apply_events(vec![event]).unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    assert!(written);
    assert_eq!((steps(&parts.settings), saver.missed()), (vec![1], 0));
    // The state of step 1 was saved, although step 2 was taken in the meantime.
    let manifest = saver.store().search(Want::Latest).unwrap().candidate().unwrap().unwrap();
    for (name, numbers) in saved {
        assert!(saver.store().load_buffer(&manifest, &name).unwrap() == numbers, "{name}");
    }
}

#[test]
fn a_failure_of_the_store_is_a_missed_checkpoint_and_one_of_a_rank_is_the_end() {
    let (dir, comm) = (tempdir().unwrap(), collective());
    let mut parts = Parts::fresh(&comm, settings(dir.path(), &["checkpoint.on_failure=warn"]));
    let mut saver = saver(&parts);
    parts.steps(1);
    saver.save(&parts.task.network, &parts.state).unwrap();
    let of_store = Error::new(ErrorKind::Storage, "the bucket is gone");
    saver.apply_events(vec![Some(SaveEvent::Failed(of_store))]).unwrap();
    assert_eq!(saver.missed(), 1);
    for event in [
        SaveEvent::Failed(Error::internal("a fault")),
        SaveEvent::LeaseLost(Error::new(ErrorKind::Storage, "another job took the lease")),
    ] {
        let said = format!("{event:?}");
        saver.save(&parts.task.network, &parts.state).unwrap();
        assert!(matches!(saver.apply_events(vec![Some(event)]), Err(Failure::Agreed(_))), "{said}");
    }
}

#[test]
fn a_busy_saver_leaves_a_save_out_where_the_settings_say_so() {
    let (dir, comm) = (tempdir().unwrap(), collective());
    let mut parts = Parts::fresh(&comm, settings(dir.path(), &["checkpoint.when_busy=skip"]));
    let mut saver = saver(&parts);
    parts.steps(1);
    saver.save(&parts.task.network, &parts.state).unwrap();
    parts.steps(1);
    saver.save(&parts.task.network, &parts.state).unwrap();
    saver.finish().unwrap();
    assert_eq!((steps(&parts.settings), saver.missed()), (vec![1], 1));
}

#[test]
fn the_last_state_is_not_saved_where_its_gradient_was_not_finite() {
    let (dir, comm) = (tempdir().unwrap(), collective());
    let mut parts = Parts::fresh(&comm, settings(dir.path(), &[]));
    let mut saver = saver(&parts);
    parts.steps(1);
    parts.state.skipped_in_a_row = 1;
    let failure = saver.save_last(&parts.task.network, &parts.state).unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::Diverged);
    assert_eq!(steps(&parts.settings), [] as [u64; 0]);
}
