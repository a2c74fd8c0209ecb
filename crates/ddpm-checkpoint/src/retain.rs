//! Taking checkpoints out of the line: retention after a commit, the sweep of orphans, and the rewind of a resume.

use std::{
    collections::BTreeSet,
    fs, io,
    time::{Duration, SystemTime},
};

use futures::TryStreamExt;
use object_store::{ObjectStoreExt, path::Path};

use crate::{
    Attempt, CheckpointError, Store,
    layout::{MANIFESTS, SHARDS, aside_path, attempt_folder, attempt_of_folder, manifest_path},
    store::sync_directory,
};

/// Shards without a manifest that are younger may belong to a save in progress.
const ORPHAN_AGE: Duration = Duration::from_secs(24 * 3600);

/// What retention did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Steps whose checkpoints were deleted.
    pub deleted: Vec<u64>,
    /// Folders of attempts that never committed, or whose deletion was cut short, now deleted.
    pub swept: Vec<String>,
    /// What could not be deleted or judged, one sentence each; it was left as it is.
    pub warnings: Vec<String>,
}

impl Store {
    /// Deletes old checkpoints, to be called after a commit. Kept are the newest `keep_last` whose manifest is sound
    /// and whose shards are all there with their sizes, each multiple of `keep_every`, the step `also` (the one resumed
    /// from), and whatever cannot be judged. Then attempts without a manifest, a day old, are swept.
    ///
    /// # Errors
    /// `Store` if the commits cannot be listed; `Invalid` for a `keep_last` of 0. A deletion that fails is a warning.
    pub fn retain(
        &self,
        keep_last: usize,
        keep_every: Option<u64>,
        also: Option<u64>,
    ) -> Result<Retained, CheckpointError> {
        if keep_last == 0 {
            return Err(CheckpointError::Invalid {
                path: MANIFESTS.into(),
                reason: "retention was asked to keep no checkpoint".into(),
            });
        }
        let mut done = Retained::default();
        let mut valid = 0;
        for step in self.list()? {
            let kept = also == Some(step) || keep_every.is_some_and(|every| every > 0 && step % every == 0);
            if valid >= keep_last && kept {
                continue;
            }
            let outcome = self.block_on(async {
                let manifest = self.manifest(step).await?;
                if valid < keep_last {
                    self.check_sizes(&manifest).await?;
                    valid += 1;
                } else {
                    self.delete_manifest(step).await?;
                    done.deleted.push(step);
                    self.delete_folder(&attempt_folder(step, &manifest.attempt)).await?;
                }
                Ok(())
            });
            done.warn(outcome);
        }
        let swept = self.sweep(ORPHAN_AGE, &mut done);
        done.warn(swept);
        Ok(done)
    }

    /// Takes every commit newer than `to` out of the line (all of them for `None`), so that the steps after it can be
    /// committed anew. To be called once on resume, after the choice is made. The manifests are moved to `aside/`, not
    /// deleted; their shards stay for a day. Gives the steps taken out, newest first.
    ///
    /// # Errors
    /// `Store`.
    pub fn rewind(&self, to: Option<u64>) -> Result<Vec<u64>, CheckpointError> {
        let mut steps = self.list()?;
        steps.retain(|&step| to.is_none_or(|to| step > to));
        for &step in &steps {
            let (from, aside) = (manifest_path(step), aside_path(step));
            tracing::warn!(step, %aside, "checkpoint set aside: training continues from an earlier step");
            self.block_on(self.objects.rename(&from, &aside)).map_err(|e| self.failed("move", &from, e))?;
        }
        Ok(steps)
    }

    /// Deletes the folders of attempts that no manifest names and in which nothing was written for `age`.
    pub(crate) fn sweep(&self, age: Duration, done: &mut Retained) -> Result<(), CheckpointError> {
        let committed: BTreeSet<u64> = self.list()?.into_iter().collect();
        let parent = Path::from(SHARDS);
        let found = self.block_on(self.objects.list_with_delimiter(Some(&parent)));
        let found = found.map_err(|e| self.failed("list", &parent, e))?.common_prefixes;
        let folders: Vec<_> = found.iter().filter_map(|folder| attempt_of_folder(folder.filename()?)).collect();
        for (step, attempt) in &folders {
            let outcome = self.block_on(async {
                if committed.contains(step) {
                    // The usual case, the step's only folder, is its manifest's and costs no request.
                    let rivals = folders.iter().filter(|(other, _)| other == step).count() > 1;
                    if !rivals || self.manifest(*step).await?.attempt == *attempt {
                        return Ok(());
                    }
                }
                let folder = attempt_folder(*step, attempt);
                if self.idle(&folder, attempt).await? >= age {
                    self.delete_folder(&folder).await?;
                    done.swept.push(folder.to_string());
                }
                Ok(())
            });
            done.warn(outcome);
        }
        Ok(())
    }

    /// How long ago anything was written to an attempt's folder; 0 if in the future by this clock.
    async fn idle(&self, folder: &Path, attempt: &Attempt) -> Result<Duration, CheckpointError> {
        let times = self.objects.list(Some(folder)).map_ok(|object| SystemTime::from(object.last_modified));
        let times: Vec<_> = times.try_collect().await.map_err(|e| self.failed("list", folder, e))?;
        let last = times.into_iter().max().unwrap_or_else(|| attempt.time());
        Ok(SystemTime::now().duration_since(last).unwrap_or_default())
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
        let objects: Vec<_> =
            self.objects.list(Some(folder)).try_collect().await.map_err(|e| self.failed("list", folder, e))?;
        for object in objects {
            match self.objects.delete(&object.location).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => (),
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

impl Retained {
    fn warn(&mut self, outcome: Result<(), CheckpointError>) {
        if let Err(e) = outcome {
            tracing::warn!("retention left something behind: {e}");
            self.warnings.push(e.to_string());
        }
    }
}
