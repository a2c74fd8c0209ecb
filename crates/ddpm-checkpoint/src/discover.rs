//! Verification of one checkpoint, and the choice of the one to resume from.

use crate::{CheckpointError, Manifest, Store, layout::manifest_path};

/// Which checkpoint to resume from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The newest that verifies.
    Latest,
    /// This one and no other.
    Step(u64),
}

/// The checkpoint to resume from.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its manifest.
    pub manifest: Manifest,
    /// Newer checkpoints that did not verify, with the reason, newest first.
    pub skipped: Vec<(u64, String)>,
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
        self.block_on(async {
            let manifest = self.manifest(step).await?;
            let mut faults = Vec::new();
            for entry in &manifest.shards {
                match self.scan(entry, |_| ()).await {
                    Err(CheckpointError::Damaged { path, reason, .. }) => faults.push(format!("{path}: {reason}")),
                    other => other?,
                }
            }
            Ok(Report { manifest, faults })
        })
    }

    /// Finds the checkpoint to resume from, verified whole. With [`Want::Latest`] a damaged one is reported and the
    /// next older is tried; `None` means that the store was read and has no checkpoint.
    ///
    /// # Errors
    /// `Store` if the store failed; `Incompatible` if a manifest is from a later version; `Damaged` if the step asked
    /// for does not verify, `NoneVerifies` if no checkpoint does; `NotFound` if the step asked for is not there.
    pub fn discover(&self, want: Want) -> Result<Option<Found>, CheckpointError> {
        let steps = self.list()?;
        let candidates = match want {
            Want::Latest => steps,
            Want::Step(step) if steps.contains(&step) => vec![step],
            Want::Step(step) => {
                let there: Vec<_> = steps.iter().map(u64::to_string).collect();
                let there = if there.is_empty() { "no step".into() } else { there.join(", ") };
                return Err(CheckpointError::NotFound {
                    uri: self.uri().into(),
                    path: format!("a checkpoint of step {step}"),
                    hint: format!(": it has {there}"),
                });
            }
        };
        let mut skipped = Vec::new();
        for step in candidates {
            let reason = match self.verify(step) {
                Ok(Report { manifest, faults }) if faults.is_empty() => {
                    return Ok(Some(Found { manifest, skipped }));
                }
                Ok(Report { faults, .. }) => faults.join("; "),
                Err(CheckpointError::Damaged { reason, .. }) => reason,
                // Deleted since it was listed.
                Err(CheckpointError::NotFound { .. }) => "it has vanished".into(),
                Err(e) => return Err(e),
            };
            let path = manifest_path(step);
            if want == Want::Step(step) {
                return Err(self.damaged(&path, reason));
            }
            tracing::warn!(step, %path, reason, "checkpoint is damaged, trying the next older one");
            skipped.push((step, reason));
        }
        if skipped.is_empty() {
            return Ok(None);
        }
        let reasons: Vec<_> = skipped.iter().map(|(step, reason)| format!("step {step}: {reason}")).collect();
        Err(CheckpointError::NoneVerifies { uri: self.uri().into(), reasons: reasons.join("; ") })
    }
}
