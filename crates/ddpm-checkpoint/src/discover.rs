//! Verifying one checkpoint, and searching for the one to resume from.

use std::vec::IntoIter;

use crate::{CheckpointError, Manifest, Store, bucket::Bucket, layout::manifest_path};

/// Which checkpoint to resume from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The newest valid one.
    Latest,
    /// The one at this step.
    Step(u64),
}

/// The search for the checkpoint to resume from, newest first. The caller reads each [`candidate`](Self::candidate),
/// [rejects](Self::reject) it if it turns out to be damaged, and asks for the next older one.
#[derive(Debug)]
pub struct Search<'a> {
    store: &'a Store,
    want: Want,
    newest: Option<u64>,
    left: IntoIter<u64>,
    /// The rejected steps with the reason, newest first.
    pub(crate) skipped: Vec<(u64, String)>,
}

/// What a full verification found.
#[derive(Clone, Debug)]
pub struct VerifyReport {
    /// The manifest, which is valid by itself.
    pub manifest: Manifest,
    /// One sentence per damaged shard; none if the checkpoint is valid.
    pub faults: Vec<String>,
}

impl Store {
    /// Reads every byte of a checkpoint and checks the manifest's checksum and consistency, and each shard's presence,
    /// size and SHA-256.
    ///
    /// # Errors
    /// `NotFound`, `Damaged` or `Incompatible` if the manifest is; `Store` if the store failed, so that the state is
    /// unknown.
    pub fn verify(&self, step: u64) -> Result<VerifyReport, CheckpointError> {
        self.block_on(self.bucket.verify(step))
    }

    /// Starts the search for the checkpoint to resume from.
    ///
    /// # Errors
    /// `Store` if the store failed; `NotFound`, listing the existing steps, if the requested step does not exist.
    pub fn search(&self, want: Want) -> Result<Search<'_>, CheckpointError> {
        let steps = self.list()?;
        let newest = steps.first().copied();
        let left = match want {
            Want::Latest => steps,
            Want::Step(step) if steps.contains(&step) => vec![step],
            Want::Step(step) => return Err(no_such_step(self.uri(), step, &steps)),
        };
        Ok(Search { store: self, want, newest, left: left.into_iter(), skipped: Vec::new() })
    }
}

/// The error for a checkpoint of `step` that does not exist, listing the existing `steps`.
pub(crate) fn no_such_step(uri: &str, step: u64, steps: &[u64]) -> CheckpointError {
    let there: Vec<_> = steps.iter().map(u64::to_string).collect();
    let there = if there.is_empty() { "no step".into() } else { there.join(", ") };
    let (path, hint) = (format!("a checkpoint of step {step}"), format!(": it has {there}"));
    CheckpointError::NotFound { uri: uri.into(), path, hint }
}

impl Search<'_> {
    /// The newest step that was listed, valid or not.
    pub fn newest(&self) -> Option<u64> {
        self.newest
    }

    /// The next checkpoint with a valid manifest and all shards present with the right size. [`Store::read_shard`]
    /// checks the SHA-256, so that each byte is read only once. `None` means that the store was read and has no
    /// checkpoint.
    ///
    /// # Errors
    /// `Store` if the store failed; `Incompatible` if a manifest is from a later version; `Damaged` if the requested
    /// step is, `NoneVerifies` if all are.
    pub fn candidate(&mut self) -> Result<Option<Manifest>, CheckpointError> {
        while let Some(step) = self.left.next() {
            match self.store.block_on(self.store.bucket.check_presence(step)) {
                Ok(manifest) => return Ok(Some(manifest)),
                Err(error) => self.reject(step, error)?,
            }
        }
        if self.skipped.is_empty() {
            return Ok(None);
        }
        let reasons: Vec<_> = self.skipped.iter().map(|(step, reason)| format!("step {step}: {reason}")).collect();
        Err(CheckpointError::NoneVerifies { uri: self.store.uri().into(), reasons: reasons.join("; ") })
    }

    /// Skips the checkpoint of `step` with a warning, if `error` means that it is damaged.
    ///
    /// # Errors
    /// `error` itself if it means anything else, or if this is the requested step.
    pub fn reject(&mut self, step: u64, error: CheckpointError) -> Result<(), CheckpointError> {
        let manifest = manifest_path(step);
        let reason = match &error {
            _ if self.want == Want::Step(step) => return Err(error),
            CheckpointError::Damaged { path, reason, .. } if path == manifest.as_ref() => reason.clone(),
            CheckpointError::Damaged { path, reason, .. } => format!("{path}: {reason}"),
            // Deleted since it was listed.
            CheckpointError::NotFound { .. } => "it has disappeared".into(),
            _ => return Err(error),
        };
        tracing::warn!(step, path = %manifest, reason, "checkpoint is damaged; trying the next older one");
        self.skipped.push((step, reason));
        Ok(())
    }
}

impl Bucket {
    /// The manifest of a checkpoint that is valid as far as can be checked without reading its shards.
    async fn check_presence(&self, step: u64) -> Result<Manifest, CheckpointError> {
        let manifest = self.manifest(step).await?;
        self.check_sizes(&manifest).await?;
        Ok(manifest)
    }

    pub async fn verify(&self, step: u64) -> Result<VerifyReport, CheckpointError> {
        let manifest = self.manifest(step).await?;
        let mut faults = Vec::new();
        for entry in &manifest.shards {
            match self.scan(entry, async |_| Ok(())).await {
                Err(CheckpointError::Damaged { path, reason, .. }) => faults.push(format!("{path}: {reason}")),
                other => other?,
            }
        }
        Ok(VerifyReport { manifest, faults })
    }
}
