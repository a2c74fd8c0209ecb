//! Taking checkpoints out of the line: retention after a commit, the sweep of orphans, one dropped by hand, and the
//! rewind of a resume.

use std::{
    collections::BTreeSet,
    fs, io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStoreExt, path::Path};

use crate::{
    Attempt, CheckpointError, Failpoint, Lease, Pending, Store,
    bucket::Bucket,
    discover::absent,
    layout::{ASIDE, MANIFESTS, SHARDS, attempt_folder, attempt_of_folder, manifest_path, set_aside_of},
    lease::Holder,
    store::sync_directory,
};

/// Shards without a manifest that are younger may belong to a save in progress; those of a step set aside for less, to a
/// checkpoint that a user may want back.
const ORPHAN_AGE: Duration = Duration::from_secs(24 * 3600);

/// Which checkpoints outlive a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The newest valid ones; at least 1, better 2.
    pub keep_last: usize,
    /// Every step that this divides.
    pub keep_every: Option<u64>,
    /// One more step: the one resumed from.
    pub also: Option<u64>,
}

/// What retention did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Steps whose checkpoints were deleted.
    pub deleted: Vec<u64>,
    /// Folders of attempts that never committed, or whose deletion was cut short, now deleted.
    pub swept: Vec<String>,
    /// What could not be deleted or judged, one sentence each, logged already; it was left as it is.
    pub warnings: Vec<String>,
}

impl Retention {
    pub(crate) fn check(&self) -> Result<(), CheckpointError> {
        let reason = "retention was asked to keep no checkpoint";
        match self.keep_last {
            0 => Err(CheckpointError::Invalid { path: MANIFESTS.into(), reason: reason.into() }),
            _ => Ok(()),
        }
    }

    fn spares(&self, step: u64) -> bool {
        self.also == Some(step) || self.keep_every.is_some_and(|every| every > 0 && step.is_multiple_of(every))
    }
}

impl Store {
    /// Deletes old checkpoints, and waits. Kept are the newest `keep_last` whose manifest is sound and whose shards are
    /// all there with their sizes, what else `retention` spares, and whatever cannot be judged. Then attempts without a
    /// manifest, a day old, are swept. With a lease, nothing is deleted unless it is still held.
    ///
    /// # Errors
    /// `Store` if the commits cannot be listed or the lease cannot be read; `LeaseLost`; `Invalid` for a `keep_last` of
    /// 0. A deletion that fails is a warning.
    pub fn prune(&self, retention: &Retention, lease: Option<&Lease>) -> Result<Retained, CheckpointError> {
        let holder = lease.map(Lease::holder);
        self.block_on(self.bucket.retain(retention, holder.as_deref()))
    }

    /// As [`prune`](Self::prune), in the background: what follows a commit. Dropped, it ends between two deletions.
    ///
    /// # Errors
    /// As [`prune`](Self::prune), given by the [`Pending`].
    pub fn start_retention(&self, retention: Retention, lease: Option<&Lease>) -> Pending<Retained> {
        let (bucket, holder) = (Arc::clone(&self.bucket), lease.map(Lease::holder));
        self.spawn(async move { bucket.retain(&retention, holder.as_deref()).await })
    }

    /// The steps that [`prune`](Self::prune) would delete now, newest first, and what it would warn of.
    ///
    /// # Errors
    /// As [`prune`](Self::prune).
    pub fn prunable(&self, retention: &Retention) -> Result<(Vec<u64>, Vec<String>), CheckpointError> {
        let mut done = Retained::default();
        let doomed = self.block_on(self.bucket.doomed(retention, &mut done))?;
        Ok((doomed.into_iter().map(|(step, _)| step).collect(), done.warnings))
    }

    /// Deletes the checkpoint of `step`, sound or not: its manifest, then all shards that were ever written for that step.
    /// To be called by who holds the lease.
    ///
    /// # Errors
    /// `NotFound` if there is none; `LeaseLost`; `Store`, after which the checkpoint stands or shards are left to be swept.
    pub fn drop_checkpoint(&self, step: u64, lease: &Lease) -> Result<(), CheckpointError> {
        let holder = lease.holder();
        self.block_on(async {
            let steps = self.bucket.list().await?;
            if !steps.contains(&step) {
                return Err(absent(&self.bucket.uri, step, &steps));
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

    /// Deletes all that is below the store's prefix, of whatever kind and whoever holds the lease: for a prefix that the
    /// caller made up for itself. A directory goes with its content.
    ///
    /// # Errors
    /// `Store`; some of it may be gone then.
    pub fn erase(self) -> Result<(), CheckpointError> {
        self.block_on(self.bucket.delete_folder(&Path::default()))
    }

    /// Takes every commit newer than `to` out of the line (all of them for `None`), so that the steps after it can be
    /// committed anew. To be called once on resume, after the choice is made and the lease is held. The manifests are
    /// moved to `aside/`, not deleted; their shards stay for a day. Gives the steps taken out, newest first.
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
    pub async fn retain(&self, retention: &Retention, holder: Option<&Holder>) -> Result<Retained, CheckpointError> {
        confirm(holder).await?;
        Failpoint::RetentionBegun.reach();
        let mut done = Retained::default();
        for (step, attempt) in self.doomed(retention, &mut done).await? {
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

    /// The checkpoints that retention gives up, newest first.
    async fn doomed(&self, retention: &Retention, done: &mut Retained) -> Result<Vec<(u64, Attempt)>, CheckpointError> {
        retention.check()?;
        let (mut valid, mut doomed) = (0, Vec::new());
        for step in self.list().await? {
            if valid >= retention.keep_last && retention.spares(step) {
                continue;
            }
            match self.manifest(step).await {
                Ok(manifest) if valid >= retention.keep_last => doomed.push((step, manifest.attempt)),
                Ok(manifest) => match self.check_sizes(&manifest).await {
                    Ok(()) => valid += 1,
                    fault => done.warn(fault),
                },
                Err(e) => done.warn(Err(e)),
            }
        }
        Ok(doomed)
    }

    /// Deletes the folders of attempts that no manifest names and in which nothing was written for `age`, unless the step
    /// was set aside since.
    pub async fn sweep(
        &self,
        age: Duration,
        holder: Option<&Holder>,
        done: &mut Retained,
    ) -> Result<(), CheckpointError> {
        let committed: BTreeSet<u64> = self.list().await?.into_iter().collect();
        let folders = self.attempts().await?;
        let aside = self.set_aside_within(age).await?;
        for (step, attempt) in folders.iter().filter(|(step, _)| !aside.contains(step)) {
            let folder = attempt_folder(*step, attempt);
            // The usual case, the step's only folder, is its manifest's and costs no request.
            let rivals = folders.iter().filter(|(other, _)| other == step).count() > 1;
            match self.is_orphan(committed.contains(step), rivals, *step, attempt, age).await {
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

    /// Every attempt that has a folder.
    async fn attempts(&self) -> Result<Vec<(u64, Attempt)>, CheckpointError> {
        let parent = Path::from(SHARDS);
        let found = self.objects.list_with_delimiter(Some(&parent)).await;
        let found = found.map_err(|e| self.failed("list", &parent, e))?.common_prefixes;
        Ok(found.iter().filter_map(|folder| attempt_of_folder(folder.filename()?)).collect())
    }

    /// The steps whose manifests were set aside less than `age` ago, by the names that they got.
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
        rivals: bool,
        step: u64,
        attempt: &Attempt,
        age: Duration,
    ) -> Result<bool, CheckpointError> {
        if committed && (!rivals || self.manifest(step).await?.attempt == *attempt) {
            return Ok(false);
        }
        Ok(self.idle(&attempt_folder(step, attempt), attempt).await? >= age)
    }

    /// How long ago anything was written to an attempt's folder; 0 if in the future by this clock.
    async fn idle(&self, folder: &Path, attempt: &Attempt) -> Result<Duration, CheckpointError> {
        let objects = self.list_folder(folder).await?;
        let last = objects.iter().map(|object| SystemTime::from(object.last_modified)).max();
        Ok(SystemTime::now().duration_since(last.unwrap_or_else(|| attempt.time())).unwrap_or_default())
    }

    async fn list_folder(&self, folder: &Path) -> Result<Vec<ObjectMeta>, CheckpointError> {
        self.objects.list(Some(folder)).try_collect().await.map_err(|e| self.failed("list", folder, e))
    }

    /// Deletes a commit, durably: its shards may go only when it is certain not to come back after a power cut.
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
        }
        let Some(root) = &self.root else { return Ok(()) };
        // A writer killed halfway leaves a staging file that object_store neither lists nor deletes.
        match fs::remove_dir_all(root.join(folder.as_ref())) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.unsynced(folder, e)),
            _ => Ok(()),
        }
    }

    fn unsynced(&self, path: &Path, source: io::Error) -> CheckpointError {
        self.failed("delete", path, object_store::Error::Generic { store: "local", source: source.into() })
    }
}

/// Whether the lease, if one is needed, is still ours, asked of the store.
async fn confirm(holder: Option<&Holder>) -> Result<(), CheckpointError> {
    match holder {
        Some(holder) => holder.confirm().await,
        None => Ok(()),
    }
}

impl Retained {
    fn warn(&mut self, outcome: Result<(), CheckpointError>) {
        if let Err(e) = outcome {
            tracing::warn!("retention left something behind: {e}");
            self.warnings.push(e.to_string());
        }
    }
}
