//! The lease: which run may write to a store now.
//!
//! `lease.json` names a generation, an owner and an expiry. It is taken and renewed by conditional writes, each on
//! condition that nobody changed it since it was read, so of two runs that want it one gets it. A run that lost it (it
//! was frozen, or cut off, for longer than the lease runs) finds another generation there, and stops.
//!
//! Clocks decide only when a lease may be taken over, never who holds it. A clock that is ahead by more than a lease's
//! length takes over a run that is alive, which is then fenced, as it must be; one that is behind waits longer. What is
//! assumed is that a request is not delayed on its way for longer than the lease runs; a manifest that is, and lands
//! after the takeover, is set aside by the rightful writer when it meets it.
//!
//! Object stores compare and write in one step. A directory cannot, so there the comparison is made under an exclusive
//! `flock` on `lease.lock`, held for these few milliseconds only: right among the processes of one machine, and on NFS
//! among machines where the mount has locks (NFSv4, or v3 with lockd; not with `nolock` or `local_lock=flock`).

use std::{
    fs::{File, TryLockError},
    path::Path as FsPath,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use object_store::{PutMode, UpdateVersion};
use serde::{Deserialize, Serialize};
use tokio::{runtime::Runtime, sync::Mutex, task::JoinHandle};

use crate::{
    CheckpointError, Failpoint, Run, SCHEMA, Store,
    bucket::{Bucket, pause},
    layout::{lease_path, nonce, run_path},
    manifest::seal,
};

/// How often a write is repeated that turns out not to have happened, or the lock is asked for.
const TRIES: u32 = 6;

/// The right to write to a store, renewed in the background every third of its length for as long as this lives.
/// Dropped without [`release`](Self::release), it runs out by itself.
#[derive(Debug)]
pub struct Lease {
    holder: Arc<Holder>,
    pub(crate) keeper: JoinHandle<()>,
    runtime: Arc<Runtime>,
}

/// What `lease.json` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub schema: u32,
    pub generation: u64,
    pub owner: String,
    /// When the owner took it; 0 where an earlier version of the program did.
    #[serde(default)]
    pub taken_unix_ms: u64,
    /// 0 once released.
    pub expiry_unix_ms: u64,
    /// Of whoever took it, the same through all renewals.
    pub nonce: String,
}

/// One holding of the lease.
#[derive(Debug)]
pub(crate) struct Holder {
    bucket: Arc<Bucket>,
    /// The number of this holding: one more than the last one's.
    pub generation: u64,
    owner: String,
    taken_unix_ms: u64,
    nonce: String,
    ttl: Duration,
    /// The version that the next renewal must find.
    version: Mutex<UpdateVersion>,
    /// How it was lost, once that is known.
    lost: OnceLock<Loss>,
}

/// How a lease was lost.
#[derive(Debug)]
enum Loss {
    /// To another owner.
    To(String),
    /// Its record was deleted; whether the rest of the store was too.
    Deleted { emptied: bool },
}

impl Store {
    /// Takes the lease for `ttl`, renewed until it is released or dropped. To be called by rank 0 before anything is
    /// written, with an `owner` that a person recognises (host, process, run). A `ttl` of twice the store's
    /// `retry_timeout + request_timeout` outlives a store that stalls; a run that was killed is waited for as long.
    ///
    /// # Errors
    /// `Held` if another's is alive: it may be tried again at the time given. `Store`, `Damaged`, `Incompatible`.
    pub fn acquire_lease(&self, owner: &str, ttl: Duration) -> Result<Lease, CheckpointError> {
        let holder = self.block_on(acquire(&self.bucket, owner, ttl))?;
        let holder = Arc::new(holder);
        let keeper = self.runtime().spawn(keep(Arc::clone(&holder)));
        Ok(Lease { holder, keeper, runtime: Arc::clone(self.runtime()) })
    }
}

impl Lease {
    /// Whether the lease was ours when it was last renewed; asks nobody.
    ///
    /// # Errors
    /// `LeaseLost`, `Vanished`.
    pub fn check(&self) -> Result<(), CheckpointError> {
        self.holder.check()
    }

    /// Gives the lease back, so that the next run need not wait for it to run out.
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

    /// Whether a manifest of this generation is of a holder before us; 0 stands for a writer without a lease.
    pub fn succeeds(&self, generation: u64) -> bool {
        0 < generation && generation < self.generation
    }

    /// Extends the lease to `ttl` from now. That it succeeds proves that nobody has taken it.
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
        // An earlier renewal may have got through though its answer did not: it is ours all the same.
        let ours = |there: Option<&Record>| there.is_some_and(|there| there.nonce == self.nonce);
        match self.bucket.swap_lease(&record, Some(version.clone()), ours).await? {
            Swapped::Ours(renewed) => *version = renewed,
            Swapped::Another(there) => return Err(self.lose(there).await),
        }
        Ok(())
    }

    async fn lose(&self, there: Option<Record>) -> CheckpointError {
        let loss = match there {
            Some(record) => Loss::To(record.owner),
            None => {
                let run = self.bucket.read_sealed::<Run>(&run_path()).await;
                Loss::Deleted { emptied: matches!(run, Err(CheckpointError::NotFound { .. })) }
            }
        };
        self.failure(self.lost.get_or_init(|| loss))
    }

    fn failure(&self, loss: &Loss) -> CheckpointError {
        let (uri, generation) = (self.bucket.uri.clone(), self.generation);
        match loss {
            Loss::To(owner) => CheckpointError::LeaseLost { uri, generation, owner: owner.clone() },
            Loss::Deleted { emptied } => CheckpointError::Vanished { uri, emptied: *emptied },
        }
    }
}

/// Renews the lease until it is lost. A store that cannot be reached is asked again: the lease may run out meanwhile,
/// but is ours as long as nobody takes it.
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
        // Not by the nonce, which a holder that comes back to life and renews keeps. Where another was faster, the next
        // look tells who.
        if let Swapped::Ours(version) = bucket.swap_lease(&record, version, |there| there == old.as_ref()).await? {
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

/// Whose record stands after a swap.
pub(crate) enum Swapped {
    Ours(UpdateVersion),
    Another(Option<Record>),
}

impl Bucket {
    pub async fn read_lease(&self) -> Result<Option<(Record, UpdateVersion)>, CheckpointError> {
        match self.read_sealed(&lease_path()).await {
            Err(CheckpointError::NotFound { .. }) => Ok(None),
            Err(CheckpointError::Damaged { uri, path, reason }) => {
                let reason = format!("{reason} (if no run is under way, `checkpoints unlock --force` replaces it)");
                Err(CheckpointError::Damaged { uri, path, reason })
            }
            found => found.map(Some),
        }
    }

    /// Writes `new` on condition that `unchanged` holds of what is there, or that it still has this version; none stands
    /// for nothing there.
    pub async fn swap_lease(
        &self,
        new: &Record,
        mut version: Option<UpdateVersion>,
        unchanged: impl Fn(Option<&Record>) -> bool,
    ) -> Result<Swapped, CheckpointError> {
        let path = lease_path();
        let _lock = self.lock_lease().await?;
        for tries in 0..TRIES {
            let mode = match version.clone() {
                _ if self.root.is_some() => {
                    let there = self.read_lease().await?.map(|(record, _)| record);
                    if !unchanged(there.as_ref()) {
                        return Ok(Swapped::Another(there));
                    }
                    PutMode::Overwrite
                }
                Some(version) => PutMode::Update(version),
                None => PutMode::Create,
            };
            Failpoint::LeaseLocked.reach();
            let error = match self.objects.put_opts(&path, seal(new).into(), mode.into()).await {
                Ok(put) => return Ok(Swapped::Ours(put.into())),
                Err(error) => error,
            };
            // The answer may have been lost, or an earlier renewal's: what is there decides.
            match self.read_lease().await? {
                Some((record, version)) if record == *new => return Ok(Swapped::Ours(version)),
                there if !unchanged(there.as_ref().map(|(record, _)| record)) => {
                    return Ok(Swapped::Another(there.map(|(record, _)| record)));
                }
                _ if tries + 1 == TRIES => return Err(self.failed("write", &path, error)),
                there => version = there.map(|(_, version)| version),
            }
            pause(tries).await;
        }
        unreachable!("the last try returns")
    }

    /// In a directory, where nothing compares and writes in one step, the right to write the lease.
    pub async fn lock_lease(&self) -> Result<Option<File>, CheckpointError> {
        match &self.root {
            Some(root) => self.lock(&root.join("lease.lock")).await.map(Some),
            None => Ok(None),
        }
    }

    /// An exclusive lock that ends when the file is dropped, or the process dies.
    async fn lock(&self, path: &FsPath) -> Result<File, CheckpointError> {
        let failed = |e: std::io::Error| self.lease_failure(e);
        let file = File::options().create(true).truncate(false).write(true).open(path).map_err(failed)?;
        for tries in 0..TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => pause(tries).await,
                Err(TryLockError::Error(e)) => return Err(failed(e)),
            }
        }
        Err(self.lease_failure("another process holds lease.lock, perhaps one that is frozen"))
    }

    fn lease_failure(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CheckpointError {
        crate::bucket::store_error(&self.uri, "take", lease_path().as_ref(), source)
    }
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}
