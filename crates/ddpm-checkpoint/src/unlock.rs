//! Breaking a lease: freeing a store whose writer was killed, before the lease expires.
//!
//! The lease is not deleted but acquired and released at once, under a new generation. If the old writer is alive after
//! all, it finds that generation at its next renewal, which precedes each commit, and stops; a manifest that it had
//! already sent is set aside by the next writer that finds it, as after any takeover.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use object_store::ObjectStoreExt;

use crate::{
    CheckpointError, SCHEMA, Store,
    bucket::Bucket,
    layout::{lease_path, nonce},
    lease::{Record, SwapOutcome, now_ms},
    manifest::seal,
};

/// Who held a store's lease at one moment.
#[derive(Clone, Debug)]
pub struct LeaseStatus {
    /// The holder, as it describes itself.
    pub owner: String,
    uri: String,
    /// When it acquired the lease, by its own clock; `None` if written by an earlier version of the program.
    taken: Option<SystemTime>,
    /// When it last renewed the lease, by the store's clock.
    renewed: SystemTime,
    /// When the lease expires unless it is renewed, by the holder's clock.
    until: SystemTime,
    record: Record,
}

impl LeaseStatus {
    /// The time until the lease expires; zero if it has.
    pub fn remaining(&self) -> Duration {
        self.until.duration_since(SystemTime::now()).unwrap_or_default()
    }

    /// Whether the last renewal is recent enough for a live holder.
    pub(crate) fn is_being_renewed(&self) -> bool {
        age(self.renewed) < self.renewal_interval() * 3 / 2
    }

    /// A clause: who holds the lease, since when, and when it was last renewed.
    pub fn describe(&self) -> String {
        let since = self.taken.map(|taken| format!(" for {}", span(age(taken)))).unwrap_or_default();
        let (owner, uri, renewed) = (&self.owner, &self.uri, span(age(self.renewed)));
        format!("{owner} has held {uri}{since}, and last renewed the lease {renewed} ago")
    }

    /// What the last renewal says about the holder, as a clause, and how long the lease still runs, as another
    /// sentence without a full stop.
    pub fn prospects(&self) -> String {
        let alive = if self.is_being_renewed() {
            "so this one is alive, or died since"
        } else {
            "so this one seems to be dead"
        };
        let (interval, remaining) = (span(self.renewal_interval()), span(self.remaining()));
        format!("a live job renews it every {interval}, {alive}. The lease runs for another {remaining}")
    }

    /// How often a live holder renews the lease: after every third of its length.
    fn renewal_interval(&self) -> Duration {
        self.until.duration_since(self.renewed).unwrap_or_default() / 3
    }
}

impl Store {
    /// Who holds the lease; `None` if it was never acquired or has been released.
    ///
    /// # Errors
    /// `DamagedLease`, `Store`, `Incompatible`.
    pub fn lease_status(&self) -> Result<Option<LeaseStatus>, CheckpointError> {
        self.block_on(async {
            let Some((record, _)) = self.bucket.read_lease().await? else { return Ok(None) };
            if record.expiry_unix_ms == 0 {
                return Ok(None);
            }
            let path = lease_path();
            let written = self.bucket.objects.head(&path).await.map_err(|e| self.bucket.unread(&path, e))?;
            let time = |unix_ms| UNIX_EPOCH + Duration::from_millis(unix_ms);
            Ok(Some(LeaseStatus {
                owner: record.owner.clone(),
                uri: self.bucket.uri.clone(),
                taken: (record.taken_unix_ms > 0).then(|| time(record.taken_unix_ms)),
                renewed: written.last_modified.into(),
                until: time(record.expiry_unix_ms),
                record,
            }))
        })
    }

    /// Takes the lease away from the holder that was `seen`, expired or not, and leaves the store free. If the holder
    /// is alive, it can no longer commit. `by` names the caller, for the holder's last message.
    ///
    /// # Errors
    /// `Held` if another run has acquired the lease since, or if it had expired and the holder has come back; `Store`.
    pub fn break_lease(&self, seen: &LeaseStatus, by: &str) -> Result<(), CheckpointError> {
        let free = free(seen.record.generation + 1, by);
        // An expired lease is not taken from a holder that has come back.
        let ran_out = seen.remaining().is_zero();
        let same = |there: &Record| *there == seen.record || !ran_out && there.nonce == seen.record.nonce;
        self.block_on(async {
            let swapped = match self.bucket.read_lease().await? {
                Some((record, version)) if same(&record) => {
                    self.bucket.swap_lease(&free, Some(version), |there| there.is_some_and(same)).await?
                }
                there => SwapOutcome::Another(there.map(|(record, _)| record)),
            };
            match swapped {
                SwapOutcome::Another(Some(record)) if record.expiry_unix_ms > 0 => Err(CheckpointError::Held {
                    uri: self.bucket.uri.clone(),
                    owner: record.owner,
                    until: UNIX_EPOCH + Duration::from_millis(record.expiry_unix_ms),
                }),
                SwapOutcome::Another(_) | SwapOutcome::Ours(_) => Ok(()),
            }
        })
    }

    /// Replaces an unreadable lease by a free one, whose generation is later than any manifest's.
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

/// How long ago this was.
fn age(time: SystemTime) -> Duration {
    SystemTime::now().duration_since(time).unwrap_or_default()
}

/// A length of time in its two leading units.
fn span(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..60 => format!("{s} s"),
        s @ 60..3600 => format!("{} min {} s", s / 60, s % 60),
        s @ 3600..86400 => format!("{} h {} min", s / 3600, s / 60 % 60),
        s => format!("{} d {} h", s / 86400, s / 3600 % 24),
    }
}

/// A free lease.
fn free(generation: u64, by: &str) -> Record {
    let now = now_ms();
    Record { schema: SCHEMA, generation, owner: by.into(), taken_unix_ms: now, expiry_unix_ms: 0, nonce: nonce() }
}

impl Bucket {
    /// Overwrites the lease, whatever its content, provided that it does not change meanwhile.
    async fn overwrite_lease(&self, new: &Record) -> Result<(), CheckpointError> {
        let path = lease_path();
        let _lock = self.lock_lease().await?;
        let version = self.version(&path).await?;
        let put = self.replace(&path, seal(new).into(), Some(version)).await;
        put.map(drop).map_err(|e| self.failed("write", &path, e))
    }
}
