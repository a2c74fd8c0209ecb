//! Saving the training state behind the training, all ranks together.
//!
//! A save goes through three phases. Each rank copies its share of the buffers and uploads it on the store's threads;
//! when every rank has reported its shard, rank 0 commits the manifest, on the store's threads too; when it reports the
//! commit, the save is done. Reports travel with the votes that ranks cast before each step anyway, so nobody waits.
//! Retention follows on rank 0, behind the training and the next save: no save is late or lost because of it.

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ddpm_checkpoint::{
    Attempt, CheckpointError, Commit, Failpoint, Lease, Manifest, OwnedSlice, Pending, Retention, RetentionReport,
    SCHEMA, ShardEntry, Store, Upload, nonce, share,
};
use ddpm_comm::Collective;
use ddpm_config::{OnFailure, Settings, WhenBusy};
use ddpm_nn::Network;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::claim::{acquire, begin_run};
use super::data::DataRecord;
use super::state::{TrainState, tensor_table};
use crate::assemble;
use crate::coordinator::{Ballot, decode, encode, exchange, unanimous};
use crate::failure::{Exit, Failure};
use crate::signals::StopRequest;

/// Between two looks at a save that training waits for.
const PAUSE: Duration = Duration::from_millis(5);

/// Writes the checkpoints of one run.
pub struct Saver {
    store: Store,
    comm: Arc<dyn Collective>,
    /// The right to write, on rank 0; none where the user promises to be alone.
    lease: Option<Lease>,
    /// Tells this job's commits from another's.
    nonce: String,
    /// What manifests say of the settings, with paths in full.
    config: Value,
    data: DataRecord,
    /// The step that this run was resumed from, which retention spares.
    resumed_from: Option<u64>,
    /// The newest step committed.
    last_saved: Option<u64>,
    in_flight: Option<Save>,
    /// Older checkpoints being deleted, on rank 0.
    retention: Option<Pending<RetentionReport>>,
    /// Whether a commit still waits for its retention, on rank 0.
    retention_due: bool,
    /// Saves that failed or were left out, since this start of the run.
    missed: u64,
    /// Whether the last save failed.
    store_failed: bool,
}

/// Lets the next job begin at once, unless the store has just failed and would hold up the end.
impl Drop for Saver {
    fn drop(&mut self) {
        self.in_flight = None;
        self.retention = None;
        let lease = self.lease.take().filter(|_| !self.store_failed);
        if let Some(Err(error)) = lease.map(Lease::release) {
            tracing::warn!("{error}");
        }
    }
}

/// A save under way.
struct Save {
    step: u64,
    begun: Instant,
    /// When the phase at hand began.
    since: Instant,
    /// This rank's shard, until it is written and reported.
    upload: Option<Upload>,
    /// What each rank has written so far.
    shards: Vec<Option<ShardEntry>>,
    /// The manifest, but for its shards; taken by the commit. On rank 0.
    draft: Option<Manifest>,
    /// On rank 0.
    commit: Option<Commit>,
}

impl Save {
    fn late(&self, settings: &Settings) -> bool {
        self.since.elapsed() > Duration::from_secs(settings.comm.timeout_s)
    }
}

/// What a rank has to tell of the save under way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum News {
    /// Nothing new.
    #[default]
    None,
    /// Its shard is written.
    Written(ShardEntry),
    /// The manifest is committed; from rank 0.
    Committed,
    /// Its part failed; the failure as [`encode`] writes it.
    Failed(String),
    /// Nothing can be saved any more; likewise.
    Lost(String),
}

impl Saver {
    /// Opens the store, makes sure that no other job writes to it, and writes the run's identity if it is new. `newest`
    /// is the newest checkpoint that the plan found there. Gives up waiting for that job if a rank is asked to stop.
    pub fn open(
        comm: &Arc<dyn Collective>,
        settings: &Settings,
        data: DataRecord,
        newest: Option<u64>,
        resumed_from: Option<u64>,
        stop: &StopRequest,
    ) -> Result<Self, Failure> {
        let options = assemble::store_options(settings);
        let opened = Store::open_with(&settings.checkpoint_uri(), options).map_err(Failure::from);
        let store = unanimous(comm.as_ref(), opened)?;
        let config = unanimous(comm.as_ref(), config_json(settings))?;
        let lease = if settings.checkpoint.exclusive { None } else { acquire(comm.as_ref(), &store, settings, stop)? };
        // From here on a start that is refused gives the lease back.
        let mut saver = Self {
            store,
            comm: Arc::clone(comm),
            lease,
            nonce: nonce(),
            config,
            data,
            resumed_from,
            last_saved: resumed_from,
            in_flight: None,
            retention: None,
            retention_due: false,
            missed: 0,
            store_failed: false,
        };
        let begun = if comm.rank() == 0 { begin_run(&saver.store, &saver.config, newest) } else { Ok(()) };
        saver.store_failed = begun.as_ref().is_err_and(|failure| failure.exit == Exit::Storage);
        unanimous(comm.as_ref(), begun)?;
        Ok(saver)
    }

    /// Where the checkpoints are.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Saves that failed or were left out, since this start of the run; the same on every rank.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Begins to save `state`; training may go on as soon as this returns. While another save is in flight it waits for
    /// that one or is left out, by `checkpoint.when_busy`.
    pub fn save(&mut self, settings: &Settings, network: &Network, state: &TrainState) -> Result<(), Failure> {
        if self.last_saved == Some(state.step) {
            return Ok(());
        }
        if state.skipped_in_a_row > 0 {
            self.miss(&format!("step {}", state.step), "its gradient was not finite");
            return Ok(());
        }
        if let Some(save) = &self.in_flight {
            if settings.checkpoint.when_busy == WhenBusy::Skip {
                let reason = format!("step {} is still on its way", save.step);
                self.miss(&format!("step {}", state.step), reason);
                return Ok(());
            }
            self.finish(settings)?;
        }
        self.begin(settings, network, state)
    }

    /// Saves `state` and waits until it is committed. The last state must not be lost in silence: a failure is one
    /// whatever `checkpoint.on_failure` says, and so is a state whose gradient was not finite. A run that has not begun has
    /// nothing to save.
    pub fn save_last(&mut self, settings: &Settings, network: &Network, state: &TrainState) -> Result<(), Failure> {
        self.finish(settings)?;
        if state.step == 0 {
            return Ok(());
        }
        if state.skipped_in_a_row > 0 {
            let message = format!(
                "step {} is not saved, because its gradient was not finite; {}. Lower train.lr and go on from there.",
                state.step,
                self.last()
            );
            return Err(Failure::new(Exit::Diverged, message).everywhere());
        }
        self.save(settings, network, state)?;
        self.finish(settings)?;
        if self.last_saved == Some(state.step) {
            self.finish_retention(settings);
            return Ok(());
        }
        let (step, uri) = (state.step, self.store.uri());
        let message = format!("the last step, {step}, could not be saved in {uri}; mend the store and resume");
        Err(Failure::new(Exit::Storage, message).everywhere())
    }

    /// What this rank has to tell since it was last asked. To be sent to all ranks and given to [`absorb`](Self::absorb).
    pub fn news(&mut self, settings: &Settings) -> News {
        let failed = |error: CheckpointError| News::Failed(encode(&error.into()));
        if let Some(Err(error)) = self.lease.as_ref().map(Lease::check) {
            return News::Lost(encode(&error.into()));
        }
        self.tend_retention(settings);
        let Some(save) = &mut self.in_flight else { return News::None };
        match save.upload.as_mut().and_then(Upload::poll) {
            Some(Ok(entry)) => {
                save.upload = None;
                return News::Written(entry);
            }
            Some(Err(error)) => return failed(error),
            None => {}
        }
        match save.commit.as_mut().and_then(Commit::poll) {
            Some(Ok(())) => News::Committed,
            Some(Err(error)) => failed(error),
            // Only who has work of its own under way can be late with it.
            None if (save.upload.is_some() || save.commit.is_some()) && save.late(settings) => {
                let message = format!(
                    "the save of step {} took over {} s for its {}; see what slows the store, or raise comm.timeout_s",
                    save.step,
                    settings.comm.timeout_s,
                    if save.upload.is_some() { "shard" } else { "commit" }
                );
                News::Failed(encode(&Failure::new(Exit::Storage, message)))
            }
            None => News::None,
        }
    }

    /// Takes in every rank's news, in rank order; the same on every rank.
    pub fn absorb(&mut self, settings: &Settings, news: Vec<News>) -> Result<(), Failure> {
        if news.contains(&News::Committed) {
            self.committed(settings);
            return Ok(());
        }
        let failed = news.iter().enumerate().find_map(|(rank, news)| match news {
            News::Failed(text) => Some((decode(rank, text), false)),
            News::Lost(text) => Some((decode(rank, text), true)),
            _ => None,
        });
        if let Some((failure, for_good)) = failed {
            return self.give_up(settings, failure, for_good);
        }
        let Some(save) = &mut self.in_flight else { return Ok(()) };
        for (rank, news) in news.into_iter().enumerate() {
            if let News::Written(entry) = news {
                save.shards[rank] = Some(entry);
                if rank == self.comm.rank() {
                    Failpoint::ShardReported.reach();
                }
            }
        }
        if let Some(draft) = save.draft.take_if(|_| save.shards.iter().all(Option::is_some)) {
            let shards = save.shards.drain(..).flatten().collect();
            let manifest = Manifest { shards, ..draft };
            save.since = Instant::now();
            save.commit = Some(self.store.start_commit(manifest, self.lease.as_ref()));
        }
        Ok(())
    }

    fn committed(&mut self, settings: &Settings) {
        let Some(save) = self.in_flight.take() else { return };
        let seconds = save.begun.elapsed().as_secs_f64();
        tracing::info!("saved step {} in {} ({seconds:.1} s)", save.step, self.store.uri());
        self.last_saved = Some(save.step);
        self.store_failed = false;
        self.retention_due = self.comm.rank() == 0;
        self.tend_retention(settings);
        Failpoint::SaveDone.reach();
    }

    /// Takes the outcome of a retention that is over, and begins the one that is due, one at a time. A lease lost to
    /// another run shows at the next look at the lease; all else that goes wrong is made up for after the next commit.
    fn tend_retention(&mut self, settings: &Settings) {
        if let Some(done) = self.retention.as_mut().and_then(Pending::poll) {
            self.retention = None;
            if let Err(error) = done {
                tracing::warn!("older checkpoints were left as they are: {error}");
            }
        }
        if self.retention_due && self.retention.is_none() {
            self.retention_due = false;
            let c = &settings.checkpoint;
            let retention = Retention {
                keep_last: c.keep_last,
                keep_every: (c.keep_every > 0).then_some(c.keep_every),
                keep_step: self.resumed_from,
            };
            self.retention = Some(self.store.start_retention(retention, self.lease.as_ref()));
        }
    }

    /// Waits for the retention under way and the one that is due, but no longer than for a save; all ranks in short
    /// votes, so that none takes another for frozen.
    fn finish_retention(&mut self, settings: &Settings) {
        let (begun, limit) = (Instant::now(), Duration::from_secs(settings.comm.timeout_s));
        loop {
            self.tend_retention(settings);
            let waits = self.retention.is_some() && begun.elapsed() < limit;
            if self.comm.broadcast_bytes(vec![u8::from(waits)], 0) == [0] {
                break;
            }
            thread::sleep(PAUSE);
        }
        if self.retention.take().is_some() {
            tracing::warn!(
                "older checkpoints are still being deleted after {limit:?}, so some are left; raise comm.timeout_s, or use \
                 `checkpoints prune`"
            );
        }
    }

    /// Drops the save under way: uploads are aborted, older checkpoints stand. What the store did is forgiven, if
    /// `checkpoint.on_failure` says so; a rank's own trouble, or another writer, is not.
    fn give_up(&mut self, settings: &Settings, failure: Failure, for_good: bool) -> Result<(), Failure> {
        let step = self.in_flight.take().map(|save| save.step);
        self.store_failed = true;
        if for_good || settings.checkpoint.on_failure == OnFailure::Abort || failure.exit != Exit::Storage {
            return Err(failure);
        }
        self.miss(&step.map_or("a step".into(), |step| format!("step {step}")), failure);
        Ok(())
    }

    /// Counts a save that is not made, and says so.
    fn miss(&mut self, step: &str, reason: impl fmt::Display) {
        self.missed += 1;
        tracing::warn!("{step} is not saved ({} checkpoints missed; {}): {reason}", self.missed, self.last());
    }

    /// What there is to go back to, for messages.
    fn last(&self) -> String {
        self.last_saved.map_or("there is no checkpoint".into(), |step| format!("the last checkpoint is of step {step}"))
    }

    fn begin(&mut self, settings: &Settings, network: &Network, state: &TrainState) -> Result<(), Failure> {
        let (rank, world) = (self.comm.rank(), self.comm.size());
        let drawn = if rank == 0 { Attempt::generate().to_string() } else { String::new() };
        let attempt = self.comm.broadcast_bytes(drawn.into_bytes(), 0);
        let attempt: Attempt = String::from_utf8_lossy(&attempt).parse().map_err(Failure::internal)?;
        let mut ours = Vec::new();
        for (name, flat) in state.buffers() {
            let range = share(flat.numel(), rank, world);
            let part = flat.narrow(0, range.start as i64, range.len() as i64);
            ours.push(OwnedSlice { name, range, data: Vec::try_from(&part)? });
        }
        Failpoint::SnapshotTaken.reach();
        let draft = (rank == 0).then(|| self.draft(settings, network, state, attempt));
        self.in_flight = Some(Save {
            step: state.step,
            begun: Instant::now(),
            since: Instant::now(),
            upload: Some(self.store.start_upload(state.step, &attempt, rank, world, ours)),
            shards: vec![None; world],
            draft,
            commit: None,
        });
        Ok(())
    }

    /// Waits for the save under way, if any.
    pub fn finish(&mut self, settings: &Settings) -> Result<(), Failure> {
        while self.in_flight.is_some() {
            let ballot = Ballot { news: self.news(settings), ..Ballot::default() };
            let ballots = exchange(self.comm.as_ref(), &ballot)?;
            self.absorb(settings, ballots.into_iter().map(|ballot| ballot.news).collect())?;
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn draft(&self, settings: &Settings, network: &Network, state: &TrainState, attempt: Attempt) -> Manifest {
        let position = state.step * settings.train.global_batch as u64;
        Manifest {
            schema: SCHEMA,
            step: state.step,
            position,
            epoch: self.data.order(settings.seed).epoch_of(position),
            seed: settings.seed,
            attempt,
            nonce: self.nonce.clone(),
            lease: 0,
            program: format!("ddpm-dist {}", env!("CARGO_PKG_VERSION")),
            config_hash: settings.fingerprint(),
            config: self.config.clone(),
            state: state.counters(&self.data),
            buffers: state.buffer_table(),
            shards: Vec::new(),
            tensors: tensor_table(network),
        }
    }
}

/// The settings as a run writes them down, which must mean the same from any folder.
fn config_json(settings: &Settings) -> Result<Value, Failure> {
    let recorded = settings.clone().anchored(&assemble::current_folder()?);
    serde_json::to_value(recorded).map_err(Failure::internal)
}
