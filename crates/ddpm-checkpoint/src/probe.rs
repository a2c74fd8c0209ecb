//! The probe: whether a store keeps the promise that commits and leases rest on.

use object_store::{Error, ObjectStoreExt, PutMode, UpdateVersion};

use crate::{CheckpointError, Store, bucket::Bucket, layout::probe_path};

impl Store {
    /// Tries whether the store refuses to create what is there, and to update what has changed. To be called at start
    /// by rank 0, unless `checkpoint.exclusive` promises that no other run writes there.
    ///
    /// # Errors
    /// `Unconditional` if it does not, `Store` if it cannot be told.
    pub fn probe(&self) -> Result<(), CheckpointError> {
        self.block_on(self.bucket.probe())
    }
}

impl Bucket {
    async fn probe(&self) -> Result<(), CheckpointError> {
        let path = probe_path();
        let refused = |reason: &str| CheckpointError::Unconditional { uri: self.uri.clone(), reason: reason.into() };
        let put = async |mode: PutMode| match self.objects.put_opts(&path, "probe".into(), mode.into()).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => {
                Err(refused("it has no conditional writes at all"))
            }
            Err(e) => Err(self.failed("write", &path, e)),
        };
        // "Exists" is a fine answer to the first one as well: its answer was lost, and it was repeated below us.
        put(PutMode::Create).await?;
        let created_twice = put(PutMode::Create).await?;
        // Directories make their conditional updates by other means.
        let updated = match &self.root {
            Some(_) => false,
            None => {
                let stale = format!("\"{:032}\"", 0);
                put(PutMode::Update(UpdateVersion { e_tag: Some(stale), version: Some("1".into()) })).await?
            }
        };
        if let Err(e) = self.objects.delete(&path).await {
            tracing::warn!("{path} in {} could not be deleted: {e}", self.uri);
        }
        match (created_twice, updated) {
            (true, _) => Err(refused("it lets an object be created where one is")),
            (_, true) => Err(refused("it lets an object be updated on a condition that does not hold")),
            _ => Ok(()),
        }
    }
}
