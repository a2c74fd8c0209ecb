//! The probe: whether a store enforces the conditional writes that commits and leases rely on, and whether several
//! processes that name the same store write to the same one.

use std::fs;

use object_store::{Error, ObjectStoreExt, PutMode, PutResult, UpdateVersion, path::Path};

use crate::{
    CheckpointError, Store,
    bucket::{Bucket, STALE_ETAG},
    layout::{PROBES, probe_path},
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
    /// `Store` if it cannot be written, `Unconditional` if the store has no conditional writes.
    pub fn leave_mark(&self) -> Result<String, CheckpointError> {
        let path = probe_path();
        self.block_on(self.bucket.create_probe(&path)).map(|_| path.to_string())
    }

    /// Whether the mark that another process left is in this store, by a conditional write that must be refused: a
    /// folder may be another one on another machine. A mark that is created instead is deleted.
    ///
    /// # Errors
    /// As [`leave_mark`](Self::leave_mark).
    pub fn has_mark(&self, mark: &str) -> Result<bool, CheckpointError> {
        let path = Path::from(mark);
        let created = self.block_on(self.bucket.create_probe(&path))?;
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
        self.block_on(self.bucket.delete_probe(&path)).map_err(|error| self.bucket.failed("delete", &path, error))
    }
}

impl Bucket {
    /// Creates an object on condition that there is none; false if there is one.
    async fn create_probe(&self, path: &Path) -> Result<bool, CheckpointError> {
        let put = self.objects.put_opts(path, "probe".into(), PutMode::Create.into()).await;
        if put.is_err() {
            self.remove_empty_folder();
        }
        self.written(path, put)
    }

    async fn delete_probe(&self, path: &Path) -> object_store::Result<()> {
        let deleted = self.objects.delete(path).await;
        self.remove_empty_folder();
        deleted
    }

    /// In a directory, removes the folder of probes, unless there are any.
    fn remove_empty_folder(&self) {
        if let Some(root) = &self.root {
            let _ = fs::remove_dir(root.join(PROBES));
        }
    }

    /// Whether a conditional write was carried out; false if its condition does not hold.
    fn written(&self, path: &Path, put: object_store::Result<PutResult>) -> Result<bool, CheckpointError> {
        match put {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => {
                Err(self.unconditional("it does not support conditional writes"))
            }
            Err(error) => Err(self.failed("write", path, error)),
        }
    }

    fn unconditional(&self, reason: &str) -> CheckpointError {
        CheckpointError::Unconditional { uri: self.uri.clone(), reason: reason.into() }
    }

    async fn probe(&self) -> Result<(), CheckpointError> {
        let path = probe_path();
        let outcome = self.check_conditions(&path).await;
        if let Err(e) = self.delete_probe(&path).await {
            tracing::warn!("{path} in {} could not be deleted: {e}", self.uri);
        }
        outcome
    }

    /// Writes to `path`, where there is no object yet, under conditions that hold and others that do not.
    async fn check_conditions(&self, path: &Path) -> Result<(), CheckpointError> {
        // "Already exists" is fine for the first put too: its response was lost and the client retried it.
        self.create_probe(path).await?;
        if self.create_probe(path).await? {
            return Err(self.unconditional("it lets an existing object be created again"));
        }
        // Directories implement conditional updates differently: see the lease.
        if self.root.is_some() {
            return Ok(());
        }
        let before = self.version(path).await?;
        let updated = self.written(path, self.update(path, "probe again".into(), before.clone()).await)?;
        // An update whose response was lost has changed the version all the same.
        if !updated && self.version(path).await?.e_tag == before.e_tag {
            return Err(self.unconditional("it refuses to update an object although the condition holds"));
        }
        let stale = UpdateVersion { e_tag: Some(format!("\"{STALE_ETAG}\"")), version: Some("1".into()) };
        if self.written(path, self.update(path, "stale".into(), stale).await)? {
            return Err(self.unconditional("it lets an object be updated although the condition does not hold"));
        }
        Ok(())
    }
}
