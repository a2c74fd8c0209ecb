//! Breaking a lease: freeing a store whose writer was killed, before its lease runs out.
//!
//! The lease is not deleted but taken and given back at once, under a generation of its own. A writer that is alive after
//! all finds that generation at its next renewal, which comes before each commit, and ends; a manifest of its that was on
//! its way is set aside by the next writer that meets it, as after any takeover.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use object_store::{ObjectStoreExt, PutMode, UpdateVersion};

use crate::{
    CheckpointError, SCHEMA, Store,
    bucket::Bucket,
    layout::{lease_path, nonce},
    lease::{Record, Swapped, now_ms},
    manifest::seal,
};

/// Who holds a store, as seen at one moment.
#[derive(Clone, Debug)]
pub struct Tenure {
    /// The holder, in its own words.
    pub owner: String,
    /// When it took the lease, by its own clock; `None` where an earlier version of the program did.
    pub taken: Option<SystemTime>,
    /// When it last renewed the lease, by the store's clock.
    pub renewed: SystemTime,
    /// When the lease ends unless it is renewed, by the holder's clock.
    pub until: SystemTime,
    record: Record,
}

impl Tenure {
    /// For how long the lease still runs; zero if it has run out.
    pub fn left(&self) -> Duration {
        self.until.duration_since(SystemTime::now()).unwrap_or_default()
    }

    /// How often the holder renews the lease, if it lives: every third of its length.
    pub fn every(&self) -> Duration {
        self.until.duration_since(self.renewed).unwrap_or_default() / 3
    }

    /// Whether the holder has renewed the lease as one that lives would have.
    pub fn is_kept_up(&self) -> bool {
        SystemTime::now().duration_since(self.renewed).unwrap_or_default() < self.every() * 3 / 2
    }
}

impl Store {
    /// Who holds the lease; `None` if nobody took it, or whoever did gave it back.
    ///
    /// # Errors
    /// `Store`, `Damaged`, `Incompatible`.
    pub fn tenure(&self) -> Result<Option<Tenure>, CheckpointError> {
        self.block_on(async {
            let Some((record, _)) = self.bucket.read_lease().await? else { return Ok(None) };
            if record.expiry_unix_ms == 0 {
                return Ok(None);
            }
            let path = lease_path();
            let written = self.bucket.objects.head(&path).await.map_err(|e| self.bucket.unread(&path, e))?;
            let time = |unix_ms| UNIX_EPOCH + Duration::from_millis(unix_ms);
            Ok(Some(Tenure {
                owner: record.owner.clone(),
                taken: (record.taken_unix_ms > 0).then(|| time(record.taken_unix_ms)),
                renewed: written.last_modified.into(),
                until: time(record.expiry_unix_ms),
                record,
            }))
        })
    }

    /// Takes the lease away from the holder that was `seen`, whether it has run out or not, and leaves the store free.
    /// The holder, should it live, can commit nothing more. `by` is who does it, for the holder's last message.
    ///
    /// # Errors
    /// `Held` if another has taken the lease since, or if it had run out and the holder has come back; `Store`.
    pub fn break_lease(&self, seen: &Tenure, by: &str) -> Result<(), CheckpointError> {
        let free = free(seen.record.generation + 1, by);
        // One that had run out is not taken from a holder that came back to life.
        let ran_out = seen.left().is_zero();
        let same = |there: &Record| *there == seen.record || !ran_out && there.nonce == seen.record.nonce;
        self.block_on(async {
            let swapped = match self.bucket.read_lease().await? {
                Some((record, version)) if same(&record) => {
                    self.bucket.swap_lease(&free, Some(version), |there| there.is_some_and(same)).await?
                }
                there => Swapped::Another(there.map(|(record, _)| record)),
            };
            match swapped {
                Swapped::Another(Some(record)) if record.expiry_unix_ms > 0 => Err(CheckpointError::Held {
                    uri: self.bucket.uri.clone(),
                    owner: record.owner,
                    until: UNIX_EPOCH + Duration::from_millis(record.expiry_unix_ms),
                }),
                Swapped::Another(_) | Swapped::Ours(_) => Ok(()),
            }
        })
    }

    /// Replaces a lease that cannot be read by one that nobody holds, of a later generation than any manifest's.
    ///
    /// # Errors
    /// `Store`.
    pub fn replace_damaged_lease(&self, by: &str) -> Result<(), CheckpointError> {
        self.block_on(async {
            let mut newest = 0;
            for step in self.bucket.list().await? {
                match self.bucket.manifest(step).await {
                    Ok(manifest) => newest = newest.max(manifest.lease),
                    Err(CheckpointError::Damaged { .. } | CheckpointError::NotFound { .. }) => {}
                    Err(e) => return Err(e),
                }
            }
            self.bucket.overwrite_lease(&free(newest + 1, by)).await
        })
    }
}

/// A lease that nobody holds.
fn free(generation: u64, by: &str) -> Record {
    let now = now_ms();
    Record { schema: SCHEMA, generation, owner: by.into(), taken_unix_ms: now, expiry_unix_ms: 0, nonce: nonce() }
}

impl Bucket {
    /// Writes the lease over one that is still what it was a moment ago, whatever that is.
    async fn overwrite_lease(&self, new: &Record) -> Result<(), CheckpointError> {
        let path = lease_path();
        let _lock = self.lock_lease().await?;
        let found = self.objects.head(&path).await.map_err(|e| self.failed("read", &path, e))?;
        let mode = match &self.root {
            Some(_) => PutMode::Overwrite,
            None => PutMode::Update(UpdateVersion { e_tag: found.e_tag, version: found.version }),
        };
        let put = self.objects.put_opts(&path, seal(new).into(), mode.into()).await;
        put.map(drop).map_err(|e| self.failed("write", &path, e))
    }
}
