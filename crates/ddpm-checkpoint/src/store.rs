//! The store: opening it, the identity of the run, and the list of commits.

use std::{
    fs, io,
    path::Path as FsPath,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use ddpm_store::{Location, environment, resolve};
use object_store::{ObjectStore, PutMode, local::LocalFileSystem};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use crate::{
    CheckpointError, Failpoint, Manifest, Pending, Run, SCHEMA, StoreOptions,
    bucket::{Bucket, store_error},
    layout::{nonce, run_path},
    manifest::seal,
    pace::Learned,
};

/// A store that holds the checkpoints of one run.
#[derive(Debug)]
pub struct Store {
    pub(crate) bucket: Arc<Bucket>,
    runtime: Arc<Runtime>,
}

impl Store {
    /// Opens the store at `uri` with the default [`StoreOptions`]:
    ///
    /// - a directory (plain path or `file://`), created if it does not exist;
    /// - `s3://bucket/prefix`, with credentials, region and endpoint from the environment as the AWS tools use it
    ///   (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL`, web
    ///   identity, container and instance roles); an endpoint without TLS needs `AWS_ALLOW_HTTP=true`;
    /// - `gs://bucket/prefix` (`GOOGLE_*`) and `az://container/prefix` (`AZURE_*`);
    /// - `memory://`, a new in-memory store that lives as long as this value.
    ///
    /// # Errors
    /// `Address` if the address is invalid, `Store` if the directory cannot be created or read.
    pub fn open(uri: &str) -> Result<Self, CheckpointError> {
        Self::open_with(uri, StoreOptions::default())
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// As [`open`](Self::open); `Invalid` if the options are invalid.
    pub fn open_with(uri: &str, options: StoreOptions) -> Result<Self, CheckpointError> {
        let create = |root: &FsPath| create_durably(root).map_err(|e| store_error(uri, "create", "", e));
        Self::open_in(&environment(), uri, options, create)
    }

    /// Opens an existing store at `uri`: as [`open`](Self::open), but a directory that does not exist is `Absent`.
    ///
    /// # Errors
    /// As [`open`](Self::open), and `Absent`.
    pub fn open_existing(uri: &str) -> Result<Self, CheckpointError> {
        Self::open_existing_with(uri, StoreOptions::default())
    }

    /// As [`open_existing`](Self::open_existing), with options.
    ///
    /// # Errors
    /// As [`open_existing`](Self::open_existing); `Invalid` if the options are invalid.
    pub fn open_existing_with(uri: &str, options: StoreOptions) -> Result<Self, CheckpointError> {
        Self::open_in(&environment(), uri, options, |root| match root.try_exists() {
            Ok(true) => Ok(()),
            Ok(false) => Err(CheckpointError::Absent { uri: uri.into() }),
            Err(e) => Err(store_error(uri, "open", "", e)),
        })
    }

    pub(crate) fn open_in(
        env: &[(String, String)],
        uri: &str,
        options: StoreOptions,
        prepare: impl FnOnce(&FsPath) -> Result<(), CheckpointError>,
    ) -> Result<Self, CheckpointError> {
        options.check().map_err(|reason| CheckpointError::Invalid { path: uri.into(), reason })?;
        let failed = |e: io::Error| store_error(uri, "open", "", e);
        let (root, objects) = match resolve(uri, options.limits(), env)
            .map_err(|reason| CheckpointError::Address { uri: uri.into(), reason })?
        {
            Location::Objects(objects) => (None, objects),
            Location::Directory(path) => {
                let root = std::path::absolute(path).map_err(failed)?;
                prepare(&root)?;
                fs::read_dir(&root).map_err(failed)?;
                let local = LocalFileSystem::new_with_prefix(&root).map_err(|e| store_error(uri, "open", "", e))?;
                (Some(root), Arc::new(local.with_fsync(true)) as Arc<dyn ObjectStore>)
            }
        };
        let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("checkpoint").enable_all().build();
        let (read, deleted) = (AtomicU64::new(0), AtomicU64::new(0));
        let learned = || Learned::new(options.pace());
        let (sending, receiving) = (learned(), learned());
        let bare_etags = AtomicBool::new(false);
        let bucket = Bucket { uri: uri.into(), objects, root, options, sending, receiving, read, deleted, bare_etags };
        Ok(Self { bucket: Arc::new(bucket), runtime: Arc::new(runtime.map_err(failed)?) })
    }

    /// The address as given.
    pub fn uri(&self) -> &str {
        &self.bucket.uri
    }

    /// Bytes of shards that have been read through this value so far: how far a verification or a copy is.
    pub fn bytes_read(&self) -> u64 {
        self.bucket.read.load(Ordering::Relaxed)
    }

    /// Objects of checkpoints that have been deleted through this value so far.
    pub fn objects_deleted(&self) -> u64 {
        self.bucket.deleted.load(Ordering::Relaxed)
    }

    /// The run's identity: read if the store has one, otherwise written with a new id and `config`.
    ///
    /// # Errors
    /// `Store`, `Damaged`, `Incompatible`.
    pub fn create_run(&self, config: &Value) -> Result<Run, CheckpointError> {
        self.write_run(Run { schema: SCHEMA, id: nonce(), config: config.clone() })
    }

    fn write_run(&self, run: Run) -> Result<Run, CheckpointError> {
        let (path, bucket) = (run_path(), &self.bucket);
        self.block_on(async {
            match bucket.objects.put_opts(&path, seal(&run).into(), PutMode::Create.into()).await {
                Ok(_) => {
                    Failpoint::RunWritten.reach();
                    Ok(run)
                }
                // A response lost after the write looks like a failure, so the stored object decides.
                Err(e) => match bucket.read_sealed(&path).await {
                    Err(CheckpointError::NotFound { .. }) => Err(bucket.failed("write", &path, e)),
                    found => found.map(|(run, _)| run),
                },
            }
        })
    }

    /// Gives a store without a run's identity that of `run`, whose checkpoints are copied there. An existing identity
    /// is kept.
    ///
    /// # Errors
    /// As [`create_run`](Self::create_run).
    pub fn adopt_run(&self, run: &Run) -> Result<Run, CheckpointError> {
        self.write_run(run.clone())
    }

    /// The run's identity, if one has been written.
    ///
    /// # Errors
    /// `Store`, `Damaged`, `Incompatible`.
    pub fn find_run(&self) -> Result<Option<Run>, CheckpointError> {
        match self.block_on(self.bucket.read_sealed(&run_path())) {
            Err(CheckpointError::NotFound { .. }) => Ok(None),
            found => found.map(|(run, _)| Some(run)),
        }
    }

    /// The committed steps, newest first, valid or not.
    ///
    /// # Errors
    /// `Store` if the store cannot be listed; this is never reported as an empty list.
    pub fn list(&self) -> Result<Vec<u64>, CheckpointError> {
        self.block_on(self.bucket.list())
    }

    /// The manifest of `step`, after checking its checksum and consistency, but not the shards.
    ///
    /// # Errors
    /// `NotFound`, `Damaged`, `Incompatible`, `Store`.
    pub fn read_manifest(&self, step: u64) -> Result<Manifest, CheckpointError> {
        self.block_on(self.bucket.manifest(step))
    }

    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, CheckpointError>> + Send + 'static,
    ) -> Pending<T> {
        Pending::spawn(&self.runtime, work)
    }

    pub(crate) fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }
}

/// Creates a directory and its parents so that they survive a power failure: each new entry is synced in its parent.
fn create_durably(root: &FsPath) -> io::Result<()> {
    let new: Vec<_> = root.ancestors().take_while(|dir| !dir.exists()).collect();
    fs::create_dir_all(root)?;
    new.into_iter().filter_map(FsPath::parent).try_for_each(sync_directory)
}

pub(crate) fn sync_directory(directory: &FsPath) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}
