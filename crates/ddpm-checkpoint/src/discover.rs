//! Verification of one checkpoint, and the search for the one to resume from.

use std::vec::IntoIter;

use crate::{CheckpointError, Manifest, Store, bucket::Bucket, layout::manifest_path};

/// Which checkpoint to resume from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The newest that verifies.
    Latest,
    /// This one and no other.
    Step(u64),
}

/// The search for the checkpoint to resume from, newest first. Each [`candidate`](Self::candidate) is to be read; if
/// that finds it damaged, it is [rejected](Self::reject), and the next older one asked for.
#[derive(Debug)]
pub struct Search<'a> {
    store: &'a Store,
    want: Want,
    newest: Option<u64>,
    left: IntoIter<u64>,
    /// Those passed over, with the reason, newest first.
    pub(crate) skipped: Vec<(u64, String)>,
}

/// What a full verification found.
#[derive(Clone, Debug)]
pub struct Report {
    /// The manifest, sound in itself.
    pub manifest: Manifest,
    /// One sentence per damaged shard; none if the checkpoint is valid.
    pub faults: Vec<String>,
}

impl Store {
    /// Reads every byte of a checkpoint: the manifest's checksum and its agreement with itself, and each shard's
    /// presence, size and SHA-256.
    ///
    /// # Errors
    /// `NotFound`, `Damaged` or `Incompatible` if the manifest is; `Store` if the store failed and nothing can be said.
    pub fn verify(&self, step: u64) -> Result<Report, CheckpointError> {
        self.block_on(self.bucket.verify(step))
    }

    /// Begins to look for the checkpoint to resume from.
    ///
    /// # Errors
    /// `Store` if the store failed; `NotFound`, with the steps that there are, if the step asked for is not there.
    pub fn search(&self, want: Want) -> Result<Search<'_>, CheckpointError> {
        let steps = self.list()?;
        let newest = steps.first().copied();
        let left = match want {
            Want::Latest => steps,
            Want::Step(step) if steps.contains(&step) => vec![step],
            Want::Step(step) => return Err(absent(self.uri(), step, &steps)),
        };
        Ok(Search { store: self, want, newest, left: left.into_iter(), skipped: Vec::new() })
    }
}

/// There is no checkpoint of `step`, but there are those of `steps`.
pub(crate) fn absent(uri: &str, step: u64, steps: &[u64]) -> CheckpointError {
    let there: Vec<_> = steps.iter().map(u64::to_string).collect();
    let there = if there.is_empty() { "no step".into() } else { there.join(", ") };
    let (path, hint) = (format!("a checkpoint of step {step}"), format!(": it has {there}"));
    CheckpointError::NotFound { uri: uri.into(), path, hint }
}

impl Search<'_> {
    /// The newest step that was listed, of whatever worth.
    pub fn newest(&self) -> Option<u64> {
        self.newest
    }

    /// The next checkpoint whose manifest is sound and whose shards are there with their sizes; their SHA-256 is for
    /// [`Store::read_shard`] to check, so that each byte is read once. `None` means that the store was read and has no
    /// checkpoint.
    ///
    /// # Errors
    /// `Store` if the store failed; `Incompatible` if a manifest is from a later version; `Damaged` if the step asked
    /// for is, `NoneVerifies` if all are.
    pub fn candidate(&mut self) -> Result<Option<Manifest>, CheckpointError> {
        while let Some(step) = self.left.next() {
            match self.store.block_on(self.store.bucket.glance(step)) {
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

    /// Passes over the checkpoint of `step` and says so, if `error` means that it is damaged.
    ///
    /// # Errors
    /// `error` itself if it means anything else, or if this was the step asked for.
    pub fn reject(&mut self, step: u64, error: CheckpointError) -> Result<(), CheckpointError> {
        let manifest = manifest_path(step);
        let reason = match &error {
            _ if self.want == Want::Step(step) => return Err(error),
            CheckpointError::Damaged { path, reason, .. } if path == manifest.as_ref() => reason.clone(),
            CheckpointError::Damaged { path, reason, .. } => format!("{path}: {reason}"),
            // Deleted since it was listed.
            CheckpointError::NotFound { .. } => "it has vanished".into(),
            _ => return Err(error),
        };
        tracing::warn!(step, path = %manifest, reason, "checkpoint is damaged, trying the next older one");
        self.skipped.push((step, reason));
        Ok(())
    }
}

impl Bucket {
    /// The manifest of a checkpoint that holds as far as can be seen without reading its shards.
    async fn glance(&self, step: u64) -> Result<Manifest, CheckpointError> {
        let manifest = self.manifest(step).await?;
        self.check_sizes(&manifest).await?;
        Ok(manifest)
    }

    pub async fn verify(&self, step: u64) -> Result<Report, CheckpointError> {
        let manifest = self.manifest(step).await?;
        let mut faults = Vec::new();
        for entry in &manifest.shards {
            match self.scan(entry, async |_| Ok(())).await {
                Err(CheckpointError::Damaged { path, reason, .. }) => faults.push(format!("{path}: {reason}")),
                other => other?,
            }
        }
        Ok(Report { manifest, faults })
    }
}
