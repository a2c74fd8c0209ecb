//! The commit: one manifest, created atomically.

use std::{sync::Arc, time::Instant};

use object_store::{PutMode, PutPayload};

use crate::{
    CheckpointError, Failpoint, Lease, Manifest, Pending, Store,
    bucket::{Bucket, MANIFEST_LIMIT, pause},
    layout::manifest_path,
    lease::Holder,
    manifest::seal,
};

/// How often to send a manifest that turns out not to be stored.
const TRIES: u32 = 4;

/// A commit in progress.
pub type Commit = Pending<()>;

impl Store {
    /// Commits a checkpoint whose shards are all written, in the background: the manifest appears atomically, and only
    /// if no other writer has committed this step. [`start_retention`](Self::start_retention) comes after it.
    ///
    /// With a lease, its generation is recorded in the manifest, and the lease is renewed before the manifest is sent.
    /// Without one, the caller promises that there is no other writer.
    ///
    /// # Errors
    /// Returned by the [`Commit`]: `Fenced` if another writer's manifest exists, `LeaseLost`, `Damaged` if a shard is
    /// not visible from here, `Invalid` if the manifest is inconsistent, `Store` if the store failed and nothing was
    /// committed as far as is known. After `Store` the step may be saved again, under the same nonce.
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
        // Ranks that write to separate disks each succeed; only this check detects it.
        self.check_sizes(manifest).await?;
        self.put_manifest(manifest, bytes.into(), holder).await
    }

    /// Creates the manifest. On any error ("already exists" may just be the effect of a retry inside the client) the
    /// stored manifest decides: it has our nonce, or another writer's, or there is none.
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
                // Written by this attempt, or by an earlier one at this step that was given up for lost: the same
                // state.
                Ok(found) if found.nonce == manifest.nonce => return Ok(()),
                // Sent before the lease passed to us, but arrived after we looked: it is not part of our history.
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
        unreachable!("the last attempt returns")
    }
}
