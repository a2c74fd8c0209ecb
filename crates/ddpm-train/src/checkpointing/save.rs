//! One save in flight: the upload of this rank's shard, the shards that ranks have reported, and the commit.

use std::time::{Duration, Instant};

use ddpm_checkpoint::{Commit, Manifest, ShardEntry, Upload};
use ddpm_model::{Error, ErrorKind};
use serde::{Deserialize, Serialize};

/// What happened on one rank to the save in flight.
#[derive(Debug, Serialize, Deserialize)]
pub enum SaveEvent {
    /// Its shard is written.
    Written(ShardEntry),
    /// The manifest is committed; from rank 0.
    Committed,
    /// Its part of the save failed.
    Failed(Error),
    /// The lease is lost, so no more saves are possible.
    LeaseLost(Error),
}

/// A save in flight.
pub(super) struct Save {
    /// The step that is saved.
    pub step: u64,
    /// When it began.
    pub begun: Instant,
    /// When the current phase began.
    since: Instant,
    /// This rank's shard, until it is written and reported.
    upload: Option<Upload>,
    /// The shard that each rank has written, if it has reported one.
    shards: Vec<Option<ShardEntry>>,
    /// The manifest without its shards, until the commit takes it; on rank 0.
    draft: Option<Manifest>,
    /// The running commit, on rank 0.
    commit: Option<Commit>,
}

impl Save {
    /// Begins with the upload of this rank's shard, one of `world`; rank 0 has a draft of the manifest, without shards.
    pub fn new(step: u64, world: usize, upload: Upload, draft: Option<Manifest>) -> Self {
        let now = Instant::now();
        let (upload, shards) = (Some(upload), vec![None; world]);
        Self { step, begun: now, since: now, upload, shards, draft, commit: None }
    }

    /// What happened on this rank since the last call. An upload or a commit that takes longer than `limit_s` fails.
    pub fn poll(&mut self, limit_s: u64) -> Option<SaveEvent> {
        match self.upload.as_mut().and_then(Upload::poll) {
            Some(Ok(entry)) => {
                self.upload = None;
                return Some(SaveEvent::Written(entry));
            }
            Some(Err(error)) => return Some(SaveEvent::Failed(error.into())),
            None => {}
        }
        match self.commit.as_mut().and_then(Commit::poll) {
            Some(Ok(())) => Some(SaveEvent::Committed),
            Some(Err(error)) => Some(SaveEvent::Failed(error.into())),
            None => self.delay(limit_s).map(SaveEvent::Failed),
        }
    }

    /// The failure of a rank whose own upload or commit takes longer than `limit_s`.
    fn delay(&self, limit_s: u64) -> Option<Error> {
        let phase = match (&self.upload, &self.commit) {
            (Some(_), _) => "shard",
            (None, Some(_)) => "commit",
            (None, None) => return None,
        };
        let late = self.since.elapsed() > Duration::from_secs(limit_s);
        late.then(|| {
            let message = format!(
                "the save of step {} took over {limit_s} s for its {phase}; find out why the store is slow, or raise \
                 comm.timeout_s",
                self.step
            );
            Error::new(ErrorKind::Storage, message)
        })
    }

    /// Records the shard that a rank has written.
    pub fn written(&mut self, rank: usize, entry: ShardEntry) {
        self.shards[rank] = Some(entry);
    }

    /// The complete manifest, once all shards are written; on rank 0, which gets it once.
    pub fn take_manifest(&mut self) -> Option<Manifest> {
        let draft = self.draft.take_if(|_| self.shards.iter().all(Option::is_some))?;
        Some(Manifest { shards: self.shards.drain(..).flatten().collect(), ..draft })
    }

    /// Goes on with the commit, which has just begun.
    pub fn committing(&mut self, commit: Commit) {
        self.since = Instant::now();
        self.commit = Some(commit);
    }
}
