//! Removing checkpoints: retention after a commit, the sweep of orphans, deletion by hand, and the rewind on resume.

use std::{
    collections::BTreeSet,
    fs, io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStoreExt, path::Path};

use crate::{
    Attempt, CheckpointError, Failpoint, Lease, Pending, Store,
    bucket::Bucket,
    discover::no_such_step,
    layout::{ASIDE, MANIFESTS, SHARDS, attempt_folder, attempt_of_folder, manifest_path, set_aside_of},
    lease::Holder,
    store::sync_directory,
};

/// Shards without a manifest may belong to a save in progress if they are younger than this; those of a step that was
/// set aside more recently may belong to a checkpoint that the user wants back.
const ORPHAN_AGE: Duration = Duration::from_secs(24 * 3600);

/// Which checkpoints to keep after a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How many of the newest valid ones; at least 1, preferably 2.
    pub keep_last: usize,
    /// Every step that is a multiple of this.
    pub keep_every: Option<u64>,
    /// One more step: the one that the run resumed from.
    pub keep_step: Option<u64>,
}

/// What retention deleted, and what it could not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionReport {
    /// Steps whose checkpoints were deleted.
    pub deleted: Vec<u64>,
    /// Deleted folders of attempts that were never committed, or whose deletion had been interrupted.
    pub swept: Vec<String>,
    /// What could not be deleted or checked and was left in place, one sentence each; already logged.
    pub warnings: Vec<String>,
}

impl Retention {
    pub(crate) fn check(&self) -> Result<(), CheckpointError> {
        let reason = "retention must keep at least one checkpoint";
        match self.keep_last {
            0 => Err(CheckpointError::Invalid { path: MANIFESTS.into(), reason: reason.into() }),
            _ => Ok(()),
        }
    }

    fn exempts(&self, step: u64) -> bool {
        self.keep_step == Some(step) || self.keep_every.is_some_and(|every| every > 0 && step.is_multiple_of(every))
    }
}

impl Store {
    /// Deletes old checkpoints, and waits. It keeps the newest `keep_last` with a valid manifest and all shards present
    /// with the right size, whatever else `retention` keeps, and every checkpoint that cannot be checked. Then it
    /// sweeps attempts without a manifest that are more than a day old. With a lease, nothing is deleted unless it is
    /// still held.
    ///
    /// # Errors
    /// `Store` if the commits cannot be listed or the lease cannot be read; `LeaseLost`; `Invalid` for a `keep_last` of
    /// 0. A failed deletion is only a warning.
    pub fn prune(&self, retention: &Retention, lease: Option<&Lease>) -> Result<RetentionReport, CheckpointError> {
        let holder = lease.map(Lease::holder);
        self.block_on(self.bucket.retain(retention, holder.as_deref()))
    }

    /// As [`prune`](Self::prune), in the background; to be called after a commit. If dropped, it stops between two
    /// deletions.
    ///
    /// # Errors
    /// As [`prune`](Self::prune), returned by the [`Pending`].
    pub fn start_retention(&self, retention: Retention, lease: Option<&Lease>) -> Pending<RetentionReport> {
        let (bucket, holder) = (Arc::clone(&self.bucket), lease.map(Lease::holder));
        self.spawn(async move { bucket.retain(&retention, holder.as_deref()).await })
    }

    /// The steps that [`prune`](Self::prune) would delete now, newest first, and its warnings.
    ///
    /// # Errors
    /// As [`prune`](Self::prune).
    pub fn prunable(&self, retention: &Retention) -> Result<(Vec<u64>, Vec<String>), CheckpointError> {
        let mut done = RetentionReport::default();
        let expired = self.block_on(self.bucket.expired(retention, &mut done))?;
        Ok((expired.into_iter().map(|(step, _)| step).collect(), done.warnings))
    }

    /// Deletes the checkpoint of `step`, valid or not: its manifest, then all shards ever written for that step. The
    /// caller must hold the lease.
    ///
    /// # Errors
    /// `NotFound` if there is none; `LeaseLost`; `Store`, after which the checkpoint is intact or leaves shards for a
    /// later sweep.
    pub fn drop_checkpoint(&self, step: u64, lease: &Lease) -> Result<(), CheckpointError> {
        let holder = lease.holder();
        self.block_on(async {
            let steps = self.bucket.list().await?;
            if !steps.contains(&step) {
                return Err(no_such_step(&self.bucket.uri, step, &steps));
            }
            holder.confirm().await?;
            self.bucket.delete_manifest(step).await?;
            Failpoint::ManifestDeleted.reach();
            for (_, attempt) in self.bucket.attempts().await?.iter().filter(|(of, _)| *of == step) {
                self.bucket.delete_folder(&attempt_folder(step, attempt)).await?;
            }
            Ok(())
        })
    }

    /// Deletes everything below the store's prefix, regardless of kind and of the lease: only for a prefix that the
    /// caller created for itself. A directory is deleted with its contents.
    ///
    /// # Errors
    /// `Store`, after which part of it may be gone.
    pub fn erase(self) -> Result<(), CheckpointError> {
        self.block_on(self.bucket.delete_folder(&Path::default()))
    }

    /// Takes every commit newer than `to` out of the history (all of them for `None`), so that the following steps can
    /// be committed again. Called once on resume, after the checkpoint has been chosen and while the lease is held. The
    /// manifests are moved to `aside/`, not deleted; their shards are kept for a day. Returns the steps that were taken
    /// out, newest first.
    ///
    /// # Errors
    /// `Store`.
    pub fn rewind(&self, to: Option<u64>) -> Result<Vec<u64>, CheckpointError> {
        self.block_on(async {
            let mut steps = self.bucket.list().await?;
            steps.retain(|&step| to.is_none_or(|to| step > to));
            for &step in &steps {
                self.bucket.set_aside(step).await?;
            }
            Ok(steps)
        })
    }
}

impl Bucket {
    pub async fn retain(
        &self,
        retention: &Retention,
        holder: Option<&Holder>,
    ) -> Result<RetentionReport, CheckpointError> {
        confirm(holder).await?;
        Failpoint::RetentionBegun.reach();
        let mut done = RetentionReport::default();
        for (step, attempt) in self.expired(retention, &mut done).await? {
            confirm(holder).await?;
            let outcome = self.delete_manifest(step).await;
            if outcome.is_ok() {
                Failpoint::ManifestDeleted.reach();
                done.deleted.push(step);
                done.warn(self.delete_folder(&attempt_folder(step, &attempt)).await);
            }
            done.warn(outcome);
        }
        match self.sweep(ORPHAN_AGE, holder, &mut done).await {
            Err(lost @ (CheckpointError::LeaseLost { .. } | CheckpointError::Vanished { .. })) => return Err(lost),
            swept => done.warn(swept),
        }
        Ok(done)
    }

    /// The checkpoints that retention would delete, newest first.
    async fn expired(
        &self,
        retention: &Retention,
        done: &mut RetentionReport,
    ) -> Result<Vec<(u64, Attempt)>, CheckpointError> {
        retention.check()?;
        let (mut valid, mut expired) = (0, Vec::new());
        for step in self.list().await? {
            if valid >= retention.keep_last && retention.exempts(step) {
                continue;
            }
            match self.manifest(step).await {
                Ok(manifest) if valid >= retention.keep_last => expired.push((step, manifest.attempt)),
                Ok(manifest) => match self.check_sizes(&manifest).await {
                    Ok(()) => valid += 1,
                    fault => done.warn(fault),
                },
                Err(e) => done.warn(Err(e)),
            }
        }
        Ok(expired)
    }

    /// Deletes the folders of attempts that no manifest refers to and that have not been written to for `age`, unless
    /// the step was set aside within that time.
    pub async fn sweep(
        &self,
        age: Duration,
        holder: Option<&Holder>,
        done: &mut RetentionReport,
    ) -> Result<(), CheckpointError> {
        let committed: BTreeSet<u64> = self.list().await?.into_iter().collect();
        let folders = self.attempts().await?;
        let aside = self.set_aside_within(age).await?;
        for (step, attempt) in folders.iter().filter(|(step, _)| !aside.contains(step)) {
            let folder = attempt_folder(*step, attempt);
            // In the usual case the step's only folder belongs to its manifest; checking that costs no request.
            let competitors = folders.iter().filter(|(other, _)| other == step).count() > 1;
            match self.is_orphan(committed.contains(step), competitors, *step, attempt, age).await {
                Ok(false) => continue,
                Ok(true) => confirm(holder).await?,
                Err(e) => {
                    done.warn(Err(e));
                    continue;
                }
            }
            let outcome = self.delete_folder(&folder).await;
            if outcome.is_ok() {
                done.swept.push(folder.to_string());
            }
            done.warn(outcome);
        }
        Ok(())
    }

    /// All attempts that have a folder.
    async fn attempts(&self) -> Result<Vec<(u64, Attempt)>, CheckpointError> {
        let parent = Path::from(SHARDS);
        let found = self.objects.list_with_delimiter(Some(&parent)).await;
        let found = found.map_err(|e| self.failed("list", &parent, e))?.common_prefixes;
        Ok(found.iter().filter_map(|folder| attempt_of_folder(folder.filename()?)).collect())
    }

    /// The steps whose manifests were set aside less than `age` ago, according to their file names.
    async fn set_aside_within(&self, age: Duration) -> Result<BTreeSet<u64>, CheckpointError> {
        let folder = Path::from(ASIDE);
        let found = self.list_folder(&folder).await?;
        let named = found.iter().filter_map(|object| set_aside_of(object.location.filename()?));
        let young = named.filter(|(_, when)| SystemTime::now().duration_since(*when).unwrap_or_default() < age);
        Ok(young.map(|(step, _)| step).collect())
    }

    async fn is_orphan(
        &self,
        committed: bool,
        competitors: bool,
        step: u64,
        attempt: &Attempt,
        age: Duration,
    ) -> Result<bool, CheckpointError> {
        if committed && (!competitors || self.manifest(step).await?.attempt == *attempt) {
            return Ok(false);
        }
        Ok(self.idle(&attempt_folder(step, attempt), attempt).await? >= age)
    }

    /// The time since the last write to an attempt's folder; 0 if it is in the future by this clock.
    async fn idle(&self, folder: &Path, attempt: &Attempt) -> Result<Duration, CheckpointError> {
        let objects = self.list_folder(folder).await?;
        let last = objects.iter().map(|object| SystemTime::from(object.last_modified)).max();
        Ok(SystemTime::now().duration_since(last.unwrap_or_else(|| attempt.time())).unwrap_or_default())
    }

    async fn list_folder(&self, folder: &Path) -> Result<Vec<ObjectMeta>, CheckpointError> {
        self.objects.list(Some(folder)).try_collect().await.map_err(|e| self.failed("list", folder, e))
    }

    /// Deletes a manifest durably: its shards may be deleted only once it is certain not to reappear after a power
    /// failure.
    async fn delete_manifest(&self, step: u64) -> Result<(), CheckpointError> {
        let path = manifest_path(step);
        self.objects.delete(&path).await.map_err(|e| self.failed("delete", &path, e))?;
        match &self.root {
            Some(root) => sync_directory(&root.join(MANIFESTS)).map_err(|e| self.unsynced(&path, e)),
            None => Ok(()),
        }
    }

    async fn delete_folder(&self, folder: &Path) -> Result<(), CheckpointError> {
        for object in self.list_folder(folder).await? {
            match self.objects.delete(&object.location).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Failpoint::ShardDeleted.reach(),
                Err(e) => return Err(self.failed("delete", &object.location, e)),
            }
            self.deleted.fetch_add(1, Ordering::Relaxed);
        }
        let Some(root) = &self.root else { return Ok(()) };
        // A writer that was killed halfway leaves a staging file that object_store neither lists nor deletes.
        match fs::remove_dir_all(root.join(folder.as_ref())) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.unsynced(folder, e)),
            _ => Ok(()),
        }
    }

    fn unsynced(&self, path: &Path, source: io::Error) -> CheckpointError {
        self.failed("delete", path, object_store::Error::Generic { store: "local", source: source.into() })
    }
}

/// Checks with the store that the lease, if there is one, is still ours.
async fn confirm(holder: Option<&Holder>) -> Result<(), CheckpointError> {
    match holder {
        Some(holder) => holder.confirm().await,
        None => Ok(()),
    }
}

impl RetentionReport {
    fn warn(&mut self, outcome: Result<(), CheckpointError>) {
        if let Err(e) = outcome {
            tracing::warn!("retention could not delete or check something: {e}");
            self.warnings.push(e.to_string());
        }
    }
}
