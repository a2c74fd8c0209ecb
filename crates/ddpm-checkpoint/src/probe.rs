//! The probe: whether a store enforces the conditional writes that commits and leases rely on, and whether several
//! processes that name the same store write to the same one.

use object_store::{Error, ObjectStoreExt, PutMode, PutResult, UpdateVersion, path::Path};

use crate::{
    CheckpointError, Store,
    bucket::{Bucket, STALE_ETAG},
    layout::probe_path,
};

impl Store {
    /// Tests whether the store creates an object only if there is none, and updates one only if it is unchanged. Rank 0
    /// calls this at startup, unless `checkpoint.exclusive` guarantees that no other run writes there.
    ///
    /// # Errors
    /// `Unconditional` if it does not, `Store` if the test failed.
    pub fn probe(&self) -> Result<(), CheckpointError> {
        self.block_on(self.bucket.probe())
    }

    /// Creates an object for [`has_mark`](Self::has_mark), to be deleted by [`remove_mark`](Self::remove_mark), and
    /// returns its path.
    ///
    /// # Errors
    /// `Store` if it cannot be written.
    pub fn leave_mark(&self) -> Result<String, CheckpointError> {
        let path = probe_path();
        self.block_on(self.bucket.create_mark(&path)).map(|_| path.to_string())
    }

    /// Whether the mark that another process left is in this store, by a conditional write that must be refused: a
    /// folder may be another one on another machine. A mark that is created instead is deleted.
    ///
    /// # Errors
    /// `Store` if it cannot be written.
    pub fn has_mark(&self, mark: &str) -> Result<bool, CheckpointError> {
        let path = Path::from(mark);
        let created = self.block_on(self.bucket.create_mark(&path))?;
        if created {
            self.remove_mark(mark)?;
        }
        Ok(!created)
    }

    /// Deletes a mark.
    ///
    /// # Errors
    /// `Store` if it cannot be deleted.
    pub fn remove_mark(&self, mark: &str) -> Result<(), CheckpointError> {
        let path = Path::from(mark);
        self.block_on(self.bucket.objects.delete(&path)).map_err(|error| self.bucket.failed("delete", &path, error))
    }
}

impl Bucket {
    /// Creates a mark; false if it exists.
    async fn create_mark(&self, path: &Path) -> Result<bool, CheckpointError> {
        match self.objects.put_opts(path, "probe".into(), PutMode::Create.into()).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(self.failed("write", path, error)),
        }
    }

    async fn probe(&self) -> Result<(), CheckpointError> {
        let path = probe_path();
        let outcome = self.check_conditions(&path).await;
        if let Err(e) = self.objects.delete(&path).await {
            tracing::warn!("{path} in {} could not be deleted: {e}", self.uri);
        }
        outcome
    }

    /// Writes to `path`, where there is no object yet, under conditions that hold and others that do not.
    async fn check_conditions(&self, path: &Path) -> Result<(), CheckpointError> {
        let refused = |reason: &str| CheckpointError::Unconditional { uri: self.uri.clone(), reason: reason.into() };
        let written = |put: object_store::Result<PutResult>| match put {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => {
                Err(refused("it does not support conditional writes"))
            }
            Err(e) => Err(self.failed("write", path, e)),
        };
        let create = || self.objects.put_opts(path, "probe".into(), PutMode::Create.into());
        // "Already exists" is fine for the first put too: its response was lost and the client retried it.
        written(create().await)?;
        if written(create().await)? {
            return Err(refused("it lets an existing object be created again"));
        }
        // Directories implement conditional updates differently: see the lease.
        if self.root.is_some() {
            return Ok(());
        }
        let before = self.version(path).await?;
        let updated = written(self.update(path, "probe again".into(), before.clone()).await)?;
        // An update whose response was lost has changed the version all the same.
        if !updated && self.version(path).await?.e_tag == before.e_tag {
            return Err(refused("it refuses to update an object although the condition holds"));
        }
        let stale = UpdateVersion { e_tag: Some(format!("\"{STALE_ETAG}\"")), version: Some("1".into()) };
        if written(self.update(path, "stale".into(), stale).await)? {
            return Err(refused("it lets an object be updated although the condition does not hold"));
        }
        Ok(())
    }
}
