//! Saves the training state in the background, all ranks together.
//!
//! A save has three phases. First, each rank copies its share of the buffers and uploads it on the store's threads.
//! When every rank has reported its shard, rank 0 commits the manifest, also on the store's threads. When rank 0
//! reports the commit, the save is done. Reports are sent with the heartbeat before each step, so no rank waits.
//! Afterwards rank 0 applies retention in the background, which neither delays nor prevents training or the next
//! save.

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ddpm_checkpoint::{Attempt, Failpoint, Lease, Manifest, Retention, SCHEMA, Store, nonce};
use ddpm_comm::{Agreed, Collective, agree};
use ddpm_config::{OnFailure, Settings, WhenBusy};
use ddpm_model::{Error, ErrorKind, Failure, current_folder, store_options};
use ddpm_nn::Network;
use serde_json::Value;

use crate::checkpointing::lease::{acquire, begin_run};
use crate::checkpointing::retaining::Retaining;
use crate::checkpointing::save::{Save, SaveEvent};
use crate::checkpointing::share::share_of;
use crate::checkpointing::snapshots::Snapshots;
use crate::data_record::DataRecord;
use crate::program::Program;
use crate::state::{TrainState, tensor_table};
use crate::stop::StopRequest;

/// Polling interval for a save that training waits for.
const PAUSE: Duration = Duration::from_millis(5);

/// Writes the checkpoints of one run.
pub struct Saver {
    store: Store,
    comm: Arc<dyn Collective>,
    settings: Settings,
    program: Program,
    /// The exclusive right to write, on rank 0; `None` if the user guarantees that no other job writes
    /// (`checkpoint.exclusive`).
    lease: Option<Lease>,
    /// Distinguishes this job's commits from another's.
    nonce: String,
    /// The settings for the manifests, with absolute paths.
    config: Value,
    data: DataRecord,
    /// The step from which this run was resumed; retention keeps it.
    resumed_from: Option<u64>,
    /// The newest step committed.
    last_saved: Option<u64>,
    in_flight: Option<Save>,
    /// Snapshots of the power-function averages, on rank 0 of a run that stores them.
    snapshots: Option<Snapshots>,
    /// The deletion of older checkpoints, on rank 0.
    retaining: Retaining,
    /// Saves that failed or were skipped since the run was last started or resumed.
    missed: u64,
    /// Whether the last save failed.
    store_failed: bool,
}

/// Releases the lease so that the next job can begin at once, unless the store has just failed and releasing would
/// delay the exit.
impl Drop for Saver {
    fn drop(&mut self) {
        self.in_flight = None;
        self.snapshots = None;
        self.retaining.stop();
        let lease = self.lease.take().filter(|_| !self.store_failed);
        if let Some(Err(error)) = lease.map(Lease::release) {
            tracing::warn!("{error}");
        }
    }
}

impl Saver {
    /// Opens the store, takes the lease so that no other job writes to it, and writes the run's identity if the run
    /// is new. `newest` is the newest checkpoint that the plan found there. Stops waiting for the lease if any rank
    /// is asked to stop.
    pub fn open(
        comm: &Arc<dyn Collective>,
        settings: &Settings,
        data: DataRecord,
        newest: Option<u64>,
        resumed_from: Option<u64>,
        stop: &StopRequest,
        program: &Program,
    ) -> Result<Self, Failure> {
        let opened = Store::open_with(&settings.checkpoint_uri(), store_options(settings)).map_err(Error::from);
        let store = agree::unanimous(comm.as_ref(), opened)?;
        let config = agree::unanimous(comm.as_ref(), config_json(settings))?;
        let lease =
            if settings.checkpoint.exclusive { None } else { acquire(comm.as_ref(), &store, settings, stop, program)? };
        // From here on, dropping the saver releases the lease if the start is refused.
        let mut saver = Self {
            store,
            comm: Arc::clone(comm),
            settings: settings.clone(),
            program: program.clone(),
            lease,
            nonce: nonce(),
            config,
            data,
            resumed_from,
            last_saved: resumed_from,
            in_flight: None,
            snapshots: None,
            retaining: Retaining::default(),
            missed: 0,
            store_failed: false,
        };
        let begun = if comm.rank() == 0 { saver.begin_run(newest) } else { Ok(()) };
        saver.store_failed = begun.as_ref().is_err_and(|error| error.kind() == ErrorKind::Storage);
        agree::unanimous(comm.as_ref(), begun)?;
        Ok(saver)
    }

    /// On rank 0: writes the run's identity, and opens the store of its snapshots. Those of an earlier run that is not
    /// resumed are set aside.
    fn begin_run(&mut self, newest: Option<u64>) -> Result<(), Error> {
        begin_run(&self.store, &self.config, newest)?;
        if self.resumed_from.is_none() {
            Snapshots::rewind(&self.settings, None)?;
        }
        self.snapshots = Snapshots::open(&self.settings)?;
        Ok(())
    }

    /// Takes everything after `step`, from which the run continues, out of the history; on rank 0.
    pub(super) fn rewind(&self, step: u64) -> Result<(), Error> {
        self.store.rewind(Some(step))?;
        Snapshots::rewind(&self.settings, Some(step))
    }

    /// The store that holds the checkpoints.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Saves that failed or were skipped since the run was last started or resumed; the same on every rank.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Begins to save `state`; training may continue as soon as this returns. If another save is still in flight,
    /// this one waits for it or is skipped, depending on `checkpoint.when_busy`.
    pub fn save(&mut self, network: &Network, state: &TrainState) -> Result<(), Failure> {
        if self.last_saved == Some(state.step) {
            return Ok(());
        }
        if state.skipped_in_a_row > 0 {
            self.record_missed(&format!("step {}", state.step), "its gradient was not finite");
            return Ok(());
        }
        if let Some(save) = &self.in_flight {
            if self.settings.checkpoint.when_busy == WhenBusy::Skip {
                let reason = format!("step {} is still being saved", save.step);
                self.record_missed(&format!("step {}", state.step), reason);
                return Ok(());
            }
            self.finish()?;
        }
        self.begin(network, state)
    }

    /// Begins to store a snapshot of the power-function averages of `state`, if one is due.
    pub fn snapshot(&mut self, network: &Network, state: &TrainState) {
        let Some(mut snapshots) = self.snapshots.take() else { return };
        if snapshots.is_due(state.step) && state.skipped_in_a_row == 0 {
            let waits = self.settings.checkpoint.when_busy == WhenBusy::Wait;
            // The other ranks wait in the heartbeat.
            let patience = if waits { Duration::from_secs(self.settings.comm.timeout_s / 2) } else { Duration::ZERO };
            let draft = |attempt| self.draft(network, state, attempt);
            snapshots.take(state, self.lease.as_ref(), patience, draft);
        }
        self.snapshots = Some(snapshots);
    }

    /// Saves `state` and waits until it is committed. The last state must not be lost silently: a failed save is an
    /// error regardless of `checkpoint.on_failure`, and so is a state whose gradient was not finite. At step 0 there
    /// is nothing to save.
    pub fn save_last(&mut self, network: &Network, state: &TrainState) -> Result<(), Failure> {
        self.finish()?;
        if state.step == 0 {
            return Ok(());
        }
        if state.skipped_in_a_row > 0 {
            let message = format!(
                "step {} is not saved, because its gradient was not finite; {}. Lower train.lr and resume from there.",
                state.step,
                self.last()
            );
            return Err(Agreed::known_to_all(Error::new(ErrorKind::Diverged, message)).into());
        }
        self.save(network, state)?;
        self.finish()?;
        if self.last_saved == Some(state.step) {
            self.finish_background();
            return Ok(());
        }
        let (step, uri) = (state.step, self.store.uri());
        let message = format!("the last step, {step}, could not be saved in {uri}; fix the store and resume");
        Err(Agreed::known_to_all(Error::new(ErrorKind::Storage, message)).into())
    }

    /// Returns what happened on this rank since the last call. Send it to all ranks and pass all ranks' events to
    /// [`apply_events`](Self::apply_events).
    pub fn poll(&mut self) -> Option<SaveEvent> {
        if let Some(Err(error)) = self.lease.as_ref().map(Lease::check) {
            return Some(SaveEvent::LeaseLost(error.into()));
        }
        self.advance_background();
        self.in_flight.as_mut()?.poll(self.settings.comm.timeout_s)
    }

    /// Applies the events of all ranks, in rank order. Every rank must pass the same events.
    pub fn apply_events(&mut self, events: Vec<Option<SaveEvent>>) -> Result<(), Failure> {
        if events.iter().any(|event| matches!(event, Some(SaveEvent::Committed))) {
            self.committed();
            return Ok(());
        }
        let mut written = Vec::new();
        for (rank, event) in events.into_iter().enumerate() {
            match event {
                Some(SaveEvent::Failed(error)) => return self.give_up(Agreed::of_rank(rank, error), false),
                Some(SaveEvent::LeaseLost(error)) => return self.give_up(Agreed::of_rank(rank, error), true),
                Some(SaveEvent::Written(entry)) => written.push((rank, entry)),
                Some(SaveEvent::Committed) | None => {}
            }
        }
        let Some(save) = &mut self.in_flight else { return Ok(()) };
        for (rank, entry) in written {
            save.written(rank, entry);
            if rank == self.comm.rank() {
                Failpoint::ShardReported.reach();
            }
        }
        if let Some(manifest) = save.take_manifest() {
            save.committing(self.store.start_commit(manifest, self.lease.as_ref()));
        }
        Ok(())
    }

    fn committed(&mut self) {
        let Some(save) = self.in_flight.take() else { return };
        let seconds = save.begun.elapsed().as_secs_f64();
        tracing::info!("saved step {} in {} ({seconds:.1} s)", save.step, self.store.uri());
        self.last_saved = Some(save.step);
        self.store_failed = false;
        if self.comm.rank() == 0 {
            let c = &self.settings.checkpoint;
            self.retaining.ask(Retention {
                keep_last: c.keep_last,
                keep_every: (c.keep_every > 0).then_some(c.keep_every),
                keep_step: self.resumed_from,
            });
        }
        self.advance_background();
        Failpoint::SaveDone.reach();
    }

    /// Continues what rank 0 does in the background: deletions, and a snapshot.
    fn advance_background(&mut self) {
        self.retaining.advance(&self.store, self.lease.as_ref());
        if let Some(snapshots) = &mut self.snapshots {
            snapshots.advance(self.lease.as_ref());
        }
    }

    /// Waits for deletions and for a snapshot in flight, but no longer than for a save. All ranks wait in a loop of short
    /// collectives, so that the watchdog does not consider any of them frozen.
    fn finish_background(&mut self) {
        let (begun, limit) = (Instant::now(), Duration::from_secs(self.settings.comm.timeout_s));
        loop {
            self.advance_background();
            let storing = self.snapshots.as_ref().is_some_and(Snapshots::is_busy);
            let waits = (self.retaining.is_busy() || storing) && begun.elapsed() < limit;
            if self.comm.broadcast_bytes(vec![u8::from(waits)], 0) == [0] {
                break;
            }
            thread::sleep(PAUSE);
        }
        if let Some(snapshots) = &mut self.snapshots {
            snapshots.abandon();
        }
        if self.retaining.is_busy() {
            self.retaining.stop();
            tracing::warn!(
                "older checkpoints are still being deleted after {limit:?}, so some remain; raise comm.timeout_s, or \
                 prune them by hand"
            );
        }
    }

    /// Abandons the save in flight: uploads are aborted, older checkpoints remain. A failure of the store is
    /// tolerated if `checkpoint.on_failure` allows it; any other failure of a rank, or a lost lease, ends the run.
    fn give_up(&mut self, failure: Agreed<Error>, lease_lost: bool) -> Result<(), Failure> {
        let step = self.in_flight.take().map(|save| save.step);
        self.store_failed = true;
        let of_store = failure.error().kind() == ErrorKind::Storage;
        if lease_lost || self.settings.checkpoint.on_failure == OnFailure::Abort || !of_store {
            return Err(failure.into());
        }
        let reason = (self.program.word)(&Error::named(failure));
        self.record_missed(&step.map_or("a step".into(), |step| format!("step {step}")), reason);
        Ok(())
    }

    /// Counts and logs a save that failed or was skipped.
    fn record_missed(&mut self, step: &str, reason: impl fmt::Display) {
        self.missed += 1;
        tracing::warn!("{step} is not saved ({} checkpoints missed; {}): {reason}", self.missed, self.last());
    }

    /// Describes the last checkpoint, for messages.
    fn last(&self) -> String {
        self.last_saved.map_or("there is no checkpoint".into(), |step| format!("the last checkpoint is of step {step}"))
    }

    fn begin(&mut self, network: &Network, state: &TrainState) -> Result<(), Failure> {
        let (rank, world) = (self.comm.rank(), self.comm.size());
        let drawn = if rank == 0 { Attempt::generate().to_string() } else { String::new() };
        let attempt = self.comm.broadcast_bytes(drawn.into_bytes(), 0);
        let attempt: Attempt = String::from_utf8_lossy(&attempt).parse().map_err(Error::internal)?;
        let values = share_of(state, rank, world)?;
        Failpoint::SnapshotTaken.reach();
        let draft = (rank == 0).then(|| self.draft(network, state, attempt));
        let upload = self.store.start_upload(state.step, &attempt, rank, world, values);
        self.in_flight = Some(Save::new(state.step, world, upload, draft));
        Ok(())
    }

    /// Waits for the save in flight, if any.
    pub fn finish(&mut self) -> Result<(), Failure> {
        while self.in_flight.is_some() {
            let event = self.poll();
            let events = agree::exchange(self.comm.as_ref(), event.as_ref())?;
            self.apply_events(events)?;
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn draft(&self, network: &Network, state: &TrainState, attempt: Attempt) -> Manifest {
        let position = state.step * self.settings.train.global_batch as u64;
        Manifest {
            schema: SCHEMA,
            step: state.step,
            position,
            epoch: self.data.epoch_of(position, self.settings.seed),
            seed: self.settings.seed,
            attempt,
            nonce: self.nonce.clone(),
            lease: 0,
            program: self.program.name.clone(),
            config_hash: self.settings.fingerprint(),
            config: self.config.clone(),
            state: state.counters(&self.data),
            buffers: state.buffer_table(),
            shards: Vec::new(),
            tensors: tensor_table(network),
        }
    }
}

/// The settings as recorded with a run, with paths that mean the same from any working directory.
fn config_json(settings: &Settings) -> Result<Value, Error> {
    let recorded = settings.clone().anchored(&current_folder()?);
    serde_json::to_value(recorded).map_err(Error::internal)
}
