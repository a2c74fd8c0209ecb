//! The commit: one manifest, created whole or not at all.

use std::{sync::Arc, time::Instant};

use object_store::{PutMode, PutPayload};

use crate::{
    CheckpointError, Failpoint, Lease, Manifest, Pending, Store,
    bucket::{Bucket, MANIFEST_LIMIT, pause},
    layout::manifest_path,
    lease::Holder,
    manifest::seal,
};

/// How often a manifest is sent that turns out not to be there.
const TRIES: u32 = 4;

/// A commit under way.
pub type Commit = Pending<()>;

impl Store {
    /// Starts to commit a checkpoint whose shards are all written, in the background: the manifest appears whole or not
    /// at all, and only if no other writer committed this step. [`start_retention`](Self::start_retention) comes after it.
    ///
    /// With a lease, its generation goes into the manifest, and it is renewed before the manifest is sent. Without one the
    /// caller promises that no other writer is there.
    ///
    /// # Errors
    /// Given by the [`Commit`]: `Fenced` if another's manifest is there, `LeaseLost`, `Damaged` if a shard cannot be
    /// seen from here, `Invalid` if the manifest contradicts itself, `Store` if the store failed and nothing was
    /// committed as far as can be told. After `Store` the step may be saved again, under the same nonce.
    pub fn start_commit(&self, mut manifest: Manifest, lease: Option<&Lease>) -> Commit {
        let (bucket, holder) = (Arc::clone(&self.bucket), lease.map(Lease::holder));
        self.spawn(async move {
            manifest.lease = holder.as_ref().map_or(0, |holder| holder.generation);
            bucket.commit(&manifest, holder.as_deref()).await?;
            Failpoint::ManifestCreated.reach();
            Ok(())
        })
    }
}

impl Bucket {
    async fn commit(&self, manifest: &Manifest, holder: Option<&Holder>) -> Result<(), CheckpointError> {
        let path = manifest_path(manifest.step);
        let invalid = |reason| CheckpointError::Invalid { path: path.to_string(), reason };
        manifest.check().map_err(invalid)?;
        let bytes = seal(manifest);
        if bytes.len() as u64 > MANIFEST_LIMIT {
            return Err(invalid(format!("it takes {} bytes, more than {MANIFEST_LIMIT}", bytes.len())));
        }
        // Ranks that write to disks of their own succeed one by one, and only here is it seen.
        self.check_sizes(manifest).await?;
        self.put_manifest(manifest, bytes.into(), holder).await
    }

    /// Creates the manifest. Whatever the store answers but success, "already exists" after a repetition below us
    /// included, what is there decides: our nonce, nothing, or another's.
    pub async fn put_manifest(
        &self,
        manifest: &Manifest,
        bytes: PutPayload,
        holder: Option<&Holder>,
    ) -> Result<(), CheckpointError> {
        let path = manifest_path(manifest.step);
        let deadline = Instant::now() + self.options.retry_timeout + self.options.request_timeout;
        for tries in 0..TRIES {
            if let Some(holder) = holder {
                holder.renew().await?;
            }
            Failpoint::CommitReady.reach();
            let Err(error) = self.objects.put_opts(&path, bytes.clone(), PutMode::Create.into()).await else {
                return Ok(());
            };
            match self.manifest(manifest.step).await {
                // This try of ours, or one at this step before that was given up for lost: the same state.
                Ok(found) if found.nonce == manifest.nonce => return Ok(()),
                // Sent before its lease passed to us, arrived after we had looked: it is not of our line.
                Ok(found) if tries + 1 < TRIES && holder.is_some_and(|ours| ours.succeeds(found.lease)) => {
                    self.set_aside(manifest.step).await?;
                }
                Ok(found) => {
                    return Err(CheckpointError::Fenced {
                        uri: self.uri.clone(),
                        step: manifest.step,
                        attempt: found.attempt.to_string(),
                    });
                }
                Err(CheckpointError::NotFound { .. }) if tries + 1 < TRIES && Instant::now() < deadline => {
                    pause(tries).await;
                }
                Err(CheckpointError::NotFound { .. }) => return Err(self.failed("write", &path, error)),
                Err(e) => return Err(e),
            }
        }
        unreachable!("the last try returns")
    }
}
