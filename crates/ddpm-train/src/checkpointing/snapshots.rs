//! Snapshots of a run's power-function averages: small checkpoints in a store of their own beside the others, written by
//! rank 0 alone, because every rank holds all averages.

use std::thread;
use std::time::{Duration, Instant};

use ddpm_checkpoint::{
    Attempt, CheckpointError, Commit, Lease, Manifest, OwnedSlice, Retention, Store, Upload, Values,
};
use ddpm_config::Settings;
use ddpm_model::{BEGUN, Error, UPDATES, average_buffer, snapshots_of, store_options};
use ddpm_nn::Ema;
use serde_json::json;
use tch::Tensor;
use tch_ext::Snapshot;

use crate::checkpointing::retaining::Retaining;
use crate::state::TrainState;

/// Between two looks at a snapshot that is being stored.
const PAUSE: Duration = Duration::from_millis(5);

/// Writes the snapshots of one run, on rank 0. They only serve to reconstruct averages, so a failure is a warning.
pub(super) struct Snapshots {
    store: Store,
    /// Steps between two snapshots.
    every: u64,
    /// The number to keep.
    keep: u64,
    in_flight: Option<InFlight>,
    retaining: Retaining,
}

/// A snapshot in flight.
struct InFlight {
    /// Until the commit takes it.
    draft: Option<Manifest>,
    /// The step of the snapshot.
    step: u64,
    /// The step after which its averages began.
    begun: u64,
    upload: Upload,
    commit: Option<Commit>,
}

impl Snapshots {
    /// Opens the store of the snapshots, if the run stores any.
    pub(super) fn open(settings: &Settings) -> Result<Option<Self>, Error> {
        let (ema, checkpoint) = (&settings.ema, &settings.checkpoint);
        let every = ema.snapshot_every.unwrap_or(checkpoint.every);
        if ema.widths.is_empty() || every == 0 {
            return Ok(None);
        }
        let store = Store::open_with(&snapshots_of(&settings.checkpoint_uri()), store_options(settings))?;
        Ok(Some(Self { store, every, keep: ema.keep_snapshots, in_flight: None, retaining: Retaining::default() }))
    }

    /// Takes the snapshots after `step` out of the history, all of them for `None`: the run continues from there, whether
    /// or not it stores further ones.
    pub(super) fn rewind(settings: &Settings, step: Option<u64>) -> Result<(), Error> {
        match Store::open_existing_with(&snapshots_of(&settings.checkpoint_uri()), store_options(settings)) {
            Err(CheckpointError::Absent { .. }) => Ok(()),
            opened => Ok(opened?.rewind(step).map(drop)?),
        }
    }

    /// Whether a snapshot is due after `step`.
    pub(super) fn is_due(&self, step: u64) -> bool {
        step.is_multiple_of(self.every)
    }

    /// Begins a snapshot of `state`; the manifest is that of a checkpoint. If the last one is still being stored, waits for
    /// it as long as `patience`.
    pub(super) fn take(
        &mut self,
        state: &TrainState,
        lease: Option<&Lease>,
        patience: Duration,
        manifest: impl FnOnce(Attempt) -> Manifest,
    ) {
        let begun = Instant::now();
        while self.in_flight.is_some() && begun.elapsed() < patience {
            thread::sleep(PAUSE);
            self.advance(lease);
        }
        if self.in_flight.is_some() {
            tracing::warn!(
                "step {}: no snapshot of the averages, because the last one is still being stored",
                state.step
            );
            return;
        }
        let averages: Vec<&Ema> = state.averages.iter().filter(|average| average.averaging().is_power()).collect();
        let values = match copied(&averages) {
            Ok(values) => values,
            Err(error) => return tracing::warn!("step {}: no snapshot of the averages: {error}", state.step),
        };
        let attempt = Attempt::generate();
        let mut draft = manifest(attempt);
        let names: Vec<String> = averages.iter().map(|average| average_buffer(average.averaging())).collect();
        draft.buffers.retain(|buffer| names.contains(&buffer.name));
        let updates: Vec<u64> = averages.iter().map(|average| average.updates()).collect();
        draft.state = json!({ UPDATES: updates, BEGUN: state.ema_begun });
        // They belong to the raw weights.
        draft.tensors.clear();
        let upload = self.store.start_upload(state.step, &attempt, 0, 1, values);
        self.in_flight =
            Some(InFlight { draft: Some(draft), step: state.step, begun: state.ema_begun, upload, commit: None });
    }

    /// Starts what is possible by now: the commit after the upload, and deleting others after the commit.
    pub(super) fn advance(&mut self, lease: Option<&Lease>) {
        self.retaining.advance(&self.store, lease);
        let Some(flight) = &mut self.in_flight else { return };
        let failed = match (flight.upload.poll(), flight.commit.as_mut().and_then(Commit::poll)) {
            (Some(Ok(shard)), _) => {
                if let Some(draft) = flight.draft.take() {
                    flight.commit = Some(self.store.start_commit(Manifest { shards: vec![shard], ..draft }, lease));
                }
                None
            }
            (_, Some(Ok(()))) => {
                self.retaining.ask(thinned(flight.step, flight.begun, self.every, self.keep));
                self.in_flight = None;
                None
            }
            (Some(Err(error)), _) | (_, Some(Err(error))) => Some(error),
            (None, None) => None,
        };
        if let Some(error) = failed {
            tracing::warn!("a snapshot of the averages is missing: {error}");
            self.in_flight = None;
        }
    }

    /// Gives up the snapshot in flight, with a warning.
    pub(super) fn abandon(&mut self) {
        if let Some(flight) = self.in_flight.take() {
            tracing::warn!(
                "step {}: the snapshot of the averages is missing, because storing it took too long",
                flight.step
            );
        }
    }

    /// Whether a snapshot is being stored, or others are being deleted.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.is_some() || self.retaining.is_busy()
    }
}

/// Which snapshots to keep after that of `step`, of averages that began after step `begun`: the newest, and the multiples of
/// an interval, which is doubled until there are at most `keep`.
fn thinned(step: u64, begun: u64, every: u64, keep: u64) -> Retention {
    let mut interval = every;
    while step / interval - begun / interval > keep {
        interval *= 2;
    }
    Retention { keep_last: 1, keep_every: Some(interval), keep_step: None }
}

/// Copies of these averages, which on a GPU may still be on their way to the host.
fn copied(averages: &[&Ema]) -> Result<Values, Error> {
    let names: Vec<String> = averages.iter().map(|average| average_buffer(average.averaging())).collect();
    let flat: Vec<Tensor> = averages.iter().map(|average| average.flat().shallow_clone()).collect();
    let snapshot = Snapshot::of(&flat)?;
    Ok(Box::new(move || {
        let whole = |(name, data): (String, Vec<f32>)| OwnedSlice { name, range: 0..data.len(), data };
        Ok(names.into_iter().zip(snapshot.read()?).map(whole).collect())
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn few_snapshots_remain_evenly_spaced(
            every in 1..50_u64,
            keep in 2..70_u64,
            taken in 1..5000_u64,
            begun in 0..1_000_000_u64,
        ) {
            let step = |taken: u64| (begun / every + taken) * every;
            let kept = thinned(step(taken), begun, every, keep).keep_every.unwrap();
            let remaining = step(taken) / kept - begun / kept;
            prop_assert!(kept.is_multiple_of(every) && remaining <= keep);
            prop_assert!(kept == every || 2 * remaining + 2 > keep, "no more than necessary are deleted");
            // What a later rule keeps, an earlier one has kept.
            let later = thinned(step(taken + 1), begun, every, keep).keep_every.unwrap();
            prop_assert!(later.is_multiple_of(kept));
        }
    }
}
