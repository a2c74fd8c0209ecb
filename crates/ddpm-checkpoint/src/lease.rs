//! The lease: which run may currently write to a store.
//!
//! `lease.json` records a generation, an owner and an expiry time. It is acquired and renewed by conditional writes
//! that succeed only if the lease is unchanged since it was read, so exactly one of two competing runs gets it. A run
//! that lost it (frozen, or disconnected, for longer than the lease lasts) finds another generation there, and stops.
//!
//! Clocks decide only when a lease may be taken over, never who holds it. A machine whose clock is ahead by more than
//! the length of a lease takes over from a live run, which is then correctly fenced; one whose clock is behind waits
//! longer. The protocol assumes that no request is delayed in transit for longer than a lease lasts; if a manifest is,
//! and arrives after the takeover, the current writer sets it aside when it finds it.
//!
//! Object stores compare and write atomically. A directory cannot, so there the comparison is made under an exclusive
//! `flock` on `lease.lock`, held only for a few milliseconds: correct among the processes of one machine, and among
//! machines on NFS if the mount supports locks (NFSv4, or v3 with lockd; not with `nolock` or `local_lock=flock`).

use std::{
    fs::{File, TryLockError},
    path::Path as FsPath,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use object_store::UpdateVersion;
use serde::{Deserialize, Serialize};
use tokio::{runtime::Runtime, sync::Mutex, task::JoinHandle};

use crate::{
    CheckpointError, Failpoint, Run, SCHEMA, Store,
    bucket::{Bucket, pause},
    layout::{lease_path, nonce, run_path},
    manifest::seal,
};

/// How often to retry a write that did not take effect, or to try to take the lock.
const TRIES: u32 = 6;

/// The right to write to a store, renewed in the background after every third of its length while this value is alive.
/// If dropped without [`release`](Self::release), it expires.
#[derive(Debug)]
pub struct Lease {
    holder: Arc<Holder>,
    pub(crate) keeper: JoinHandle<()>,
    runtime: Arc<Runtime>,
}

/// The content of `lease.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub schema: u32,
    pub generation: u64,
    pub owner: String,
    /// When the owner acquired it; 0 if written by an earlier version of the program.
    #[serde(default)]
    pub taken_unix_ms: u64,
    /// 0 once released.
    pub expiry_unix_ms: u64,
    /// Identifies the holder; unchanged by renewals.
    pub nonce: String,
}

/// One generation of the lease.
#[derive(Debug)]
pub(crate) struct Holder {
    bucket: Arc<Bucket>,
    /// The number of this generation: one more than the previous one's.
    pub generation: u64,
    owner: String,
    taken_unix_ms: u64,
    nonce: String,
    ttl: Duration,
    /// The object version that the next renewal expects.
    version: Mutex<UpdateVersion>,
    /// How the lease was lost, once that is known.
    lost: OnceLock<LossReason>,
}

/// How a lease was lost.
#[derive(Debug)]
enum LossReason {
    /// To another owner.
    To(String),
    /// `lease.json` was deleted; `emptied` if the rest of the store was too.
    Deleted { emptied: bool },
}

impl Store {
    /// Acquires the lease for `ttl` and renews it until it is released or dropped. Rank 0 calls this before anything is
    /// written, with an `owner` that a person recognises (host, process, run). A `ttl` of twice the store's
    /// `retry_timeout + request_timeout` survives a store that stalls; it is also how long the next run waits if this
    /// one is killed.
    ///
    /// # Errors
    /// `Held` if another run holds it: retry at the given time. `DamagedLease`, `Store`, `Incompatible`.
    pub fn acquire_lease(&self, owner: &str, ttl: Duration) -> Result<Lease, CheckpointError> {
        let holder = self.block_on(acquire(&self.bucket, owner, ttl))?;
        let holder = Arc::new(holder);
        let keeper = self.runtime().spawn(keep(Arc::clone(&holder)));
        Ok(Lease { holder, keeper, runtime: Arc::clone(self.runtime()) })
    }
}

impl Lease {
    /// Checks that the lease was still ours at its last renewal, without a request to the store.
    ///
    /// # Errors
    /// `LeaseLost`, `Vanished`.
    pub fn check(&self) -> Result<(), CheckpointError> {
        self.holder.check()
    }

    /// Releases the lease, so that the next run need not wait for it to expire.
    ///
    /// # Errors
    /// `LeaseLost`, `Vanished`, `Store`.
    pub fn release(self) -> Result<(), CheckpointError> {
        self.keeper.abort();
        self.runtime.block_on(self.holder.write(0))?;
        Failpoint::LeaseReleased.reach();
        Ok(())
    }

    pub(crate) fn holder(&self) -> Arc<Holder> {
        Arc::clone(&self.holder)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Holder {
    fn check(&self) -> Result<(), CheckpointError> {
        match self.lost.get() {
            Some(loss) => Err(self.failure(loss)),
            None => Ok(()),
        }
    }

    /// Whether a manifest of this generation was written by an earlier holder; 0 stands for a writer without a lease.
    pub fn succeeds(&self, generation: u64) -> bool {
        0 < generation && generation < self.generation
    }

    /// Extends the lease to `ttl` from now. Success proves that no other run has taken it.
    pub async fn renew(&self) -> Result<(), CheckpointError> {
        self.write(now_ms() + self.ttl.as_millis() as u64).await?;
        Failpoint::LeaseRenewed.reach();
        Ok(())
    }

    /// Asks the store whether the lease is still ours.
    pub async fn confirm(&self) -> Result<(), CheckpointError> {
        self.check()?;
        let there = self.bucket.read_lease().await?;
        match &there {
            Some((record, _)) if record.nonce == self.nonce => Ok(()),
            _ => Err(self.lose(there.map(|(record, _)| record)).await),
        }
    }

    async fn write(&self, expiry_unix_ms: u64) -> Result<(), CheckpointError> {
        let mut version = self.version.lock().await;
        self.check()?;
        let record = Record {
            schema: SCHEMA,
            generation: self.generation,
            owner: self.owner.clone(),
            taken_unix_ms: self.taken_unix_ms,
            expiry_unix_ms,
            nonce: self.nonce.clone(),
        };
        // An earlier renewal may have taken effect although its response was lost: the lease is still ours.
        let ours = |there: Option<&Record>| there.is_some_and(|there| there.nonce == self.nonce);
        match self.bucket.swap_lease(&record, Some(version.clone()), ours).await? {
            SwapOutcome::Ours(renewed) => *version = renewed,
            SwapOutcome::Another(there) => return Err(self.lose(there).await),
        }
        Ok(())
    }

    async fn lose(&self, there: Option<Record>) -> CheckpointError {
        let loss = match there {
            Some(record) => LossReason::To(record.owner),
            None => {
                let run = self.bucket.read_sealed::<Run>(&run_path()).await;
                LossReason::Deleted { emptied: matches!(run, Err(CheckpointError::NotFound { .. })) }
            }
        };
        self.failure(self.lost.get_or_init(|| loss))
    }

    fn failure(&self, loss: &LossReason) -> CheckpointError {
        let (uri, generation) = (self.bucket.uri.clone(), self.generation);
        match loss {
            LossReason::To(owner) => CheckpointError::LeaseLost { uri, generation, owner: owner.clone() },
            LossReason::Deleted { emptied } => CheckpointError::Vanished { uri, emptied: *emptied },
        }
    }
}

/// Renews the lease until it is lost. If the store cannot be reached, it keeps trying: the lease may expire meanwhile,
/// but remains ours until another run takes it.
async fn keep(holder: Arc<Holder>) {
    loop {
        tokio::time::sleep(holder.ttl / 3).await;
        match holder.renew().await {
            Ok(()) => (),
            Err(e @ (CheckpointError::LeaseLost { .. } | CheckpointError::Vanished { .. })) => {
                tracing::error!("{e}");
                return;
            }
            Err(e) => tracing::warn!("the lease could not be renewed: {e}"),
        }
    }
}

async fn acquire(bucket: &Arc<Bucket>, owner: &str, ttl: Duration) -> Result<Holder, CheckpointError> {
    for _ in 0..TRIES {
        let there = bucket.read_lease().await?;
        let generation = match &there {
            Some((record, _)) if record.expiry_unix_ms > now_ms() => {
                return Err(CheckpointError::Held {
                    uri: bucket.uri.clone(),
                    owner: record.owner.clone(),
                    until: UNIX_EPOCH + Duration::from_millis(record.expiry_unix_ms),
                });
            }
            Some((record, _)) => record.generation + 1,
            None => 1,
        };
        let record = Record {
            schema: SCHEMA,
            generation,
            owner: owner.into(),
            taken_unix_ms: now_ms(),
            expiry_unix_ms: now_ms() + ttl.as_millis() as u64,
            nonce: nonce(),
        };
        let (old, version) = there.unzip();
        // Compares the whole record rather than the nonce, which a holder that comes back and renews keeps. If another
        // run was faster, the next iteration reports it.
        if let SwapOutcome::Ours(version) = bucket.swap_lease(&record, version, |there| there == old.as_ref()).await? {
            Failpoint::LeaseAcquired.reach();
            return Ok(Holder {
                bucket: Arc::clone(bucket),
                generation,
                owner: record.owner,
                taken_unix_ms: record.taken_unix_ms,
                nonce: record.nonce,
                ttl,
                version: Mutex::new(version),
                lost: OnceLock::new(),
            });
        }
    }
    Err(bucket.lease_failure("other runs keep changing it"))
}

/// The outcome of a compare-and-swap of the lease.
pub(crate) enum SwapOutcome {
    Ours(UpdateVersion),
    Another(Option<Record>),
}

impl Bucket {
    pub async fn read_lease(&self) -> Result<Option<(Record, UpdateVersion)>, CheckpointError> {
        match self.read_sealed(&lease_path()).await {
            Err(CheckpointError::NotFound { .. }) => Ok(None),
            Err(CheckpointError::Damaged { uri, reason, .. }) => Err(CheckpointError::DamagedLease { uri, reason }),
            found => found.map(Some),
        }
    }

    /// Writes `new` if the stored lease satisfies `unchanged`, or still has this version; `None` means that there is no
    /// lease.
    pub async fn swap_lease(
        &self,
        new: &Record,
        mut version: Option<UpdateVersion>,
        unchanged: impl Fn(Option<&Record>) -> bool,
    ) -> Result<SwapOutcome, CheckpointError> {
        let path = lease_path();
        let _lock = self.lock_lease().await?;
        for attempts in 0..TRIES {
            if self.root.is_some() {
                let there = self.read_lease().await?.map(|(record, _)| record);
                if !unchanged(there.as_ref()) {
                    return Ok(SwapOutcome::Another(there));
                }
            }
            Failpoint::LeaseLocked.reach();
            let error = match self.replace(&path, seal(new).into(), version.clone()).await {
                Ok(put) => return Ok(SwapOutcome::Ours(put.into())),
                Err(error) => error,
            };
            // The response may have been lost, or belong to an earlier renewal: the stored lease decides.
            match self.read_lease().await? {
                Some((record, version)) if record == *new => return Ok(SwapOutcome::Ours(version)),
                there if !unchanged(there.as_ref().map(|(record, _)| record)) => {
                    return Ok(SwapOutcome::Another(there.map(|(record, _)| record)));
                }
                _ if attempts + 1 == TRIES => return Err(self.failed("write", &path, error)),
                there => version = there.map(|(_, version)| version),
            }
            pause(attempts).await;
        }
        unreachable!("the last attempt returns")
    }

    /// In a directory, which has no atomic compare-and-swap, the lock that protects writes of the lease.
    pub async fn lock_lease(&self) -> Result<Option<File>, CheckpointError> {
        match &self.root {
            Some(root) => self.lock(&root.join("lease.lock")).await.map(Some),
            None => Ok(None),
        }
    }

    /// An exclusive lock, released when the file is dropped or the process dies.
    async fn lock(&self, path: &FsPath) -> Result<File, CheckpointError> {
        let failed = |e: std::io::Error| self.lease_failure(e);
        let file = File::options().create(true).truncate(false).write(true).open(path).map_err(failed)?;
        for attempts in 0..TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => pause(attempts).await,
                Err(TryLockError::Error(e)) => return Err(failed(e)),
            }
        }
        Err(self.lease_failure("another process, possibly frozen, holds lease.lock"))
    }

    fn lease_failure(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CheckpointError {
        crate::bucket::store_error(&self.uri, "take", lease_path().as_ref(), source)
    }
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}
