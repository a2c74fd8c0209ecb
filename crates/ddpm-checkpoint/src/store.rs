//! The store: opening it, the run's identity, the list of commits, and the commit itself.

use std::{
    fs, io,
    path::{Path as FsPath, PathBuf},
};

use object_store::{ObjectStore, ObjectStoreExt, PutMode, local::LocalFileSystem, memory::InMemory, path::Path};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use crate::{
    CheckpointError, Manifest, Run, SCHEMA,
    layout::{MANIFESTS, manifest_path, nonce, run_path, step_of_manifest},
    manifest::{Unsealed, seal, unseal},
};

/// No manifest is larger, so a broken store cannot fill the memory.
pub(crate) const MANIFEST_LIMIT: u64 = 64 << 20;

/// A place that holds the checkpoints of one run.
#[derive(Debug)]
pub struct Store {
    uri: String,
    pub(crate) objects: Box<dyn ObjectStore>,
    /// The directory, if the store is one: what object_store lacks for directories is done on it directly.
    pub(crate) root: Option<PathBuf>,
    runtime: Runtime,
}

impl Store {
    /// Opens the store at `uri`: a directory (plain path or `file://`), created if it is not there, or `memory://`, a
    /// fresh one that lives as long as this value.
    ///
    /// # Errors
    /// `Address` if this build has no such store, `Store` if the directory cannot be created or read.
    pub fn open(uri: &str) -> Result<Self, CheckpointError> {
        Self::open_at(uri, |root| create_durably(root).map_err(|e| store_error(uri, "create", "", e)))
    }

    /// Opens the store at `uri` for reading: as [`open`](Self::open), but a directory that is not there is `Absent`.
    ///
    /// # Errors
    /// As [`open`](Self::open), and `Absent`.
    pub fn open_existing(uri: &str) -> Result<Self, CheckpointError> {
        Self::open_at(uri, |root| match root.try_exists() {
            Ok(true) => Ok(()),
            Ok(false) => Err(CheckpointError::Absent { uri: uri.into() }),
            Err(e) => Err(store_error(uri, "open", "", e)),
        })
    }

    fn open_at(
        uri: &str,
        prepare: impl FnOnce(&FsPath) -> Result<(), CheckpointError>,
    ) -> Result<Self, CheckpointError> {
        let address = |reason: &str| CheckpointError::Address { uri: uri.into(), reason: reason.into() };
        let directory = match uri.split_once("://") {
            Some(("memory", "")) => None,
            Some(("file", path)) if path.starts_with('/') && !path.contains('%') => Some(path),
            Some(("file", _)) => {
                return Err(address("a file:// address takes an absolute path without % escapes"));
            }
            Some(("s3" | "gs" | "az", _)) => {
                return Err(address("this build reaches local directories only"));
            }
            Some(_) => return Err(address("its scheme is unknown")),
            None if uri.is_empty() => return Err(address("the path is empty")),
            None => Some(uri),
        };
        let failed = |e| store_error(uri, "open", "", e);
        let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("checkpoint").enable_all().build();
        let runtime = runtime.map_err(failed)?;
        let (root, objects): (_, Box<dyn ObjectStore>) = match directory {
            None => (None, Box::new(InMemory::new())),
            Some(path) => {
                let root = std::path::absolute(path).map_err(failed)?;
                prepare(&root)?;
                fs::read_dir(&root).map_err(failed)?;
                let local = LocalFileSystem::new_with_prefix(&root).map_err(|e| store_error(uri, "open", "", e))?;
                (Some(root), Box::new(local.with_fsync(true)))
            }
        };
        Ok(Self { uri: uri.into(), objects, root, runtime })
    }

    /// The address as it was given.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The run's identity: written now with a fresh id and `config`, or, where the store has one, read.
    ///
    /// # Errors
    /// `Store`, `Damaged`, `Incompatible`.
    pub fn create_run(&self, config: &Value) -> Result<Run, CheckpointError> {
        let run = Run { schema: SCHEMA, id: nonce(), config: config.clone() };
        let path = run_path();
        self.block_on(async {
            match self.objects.put_opts(&path, seal(&run).into(), PutMode::Create.into()).await {
                Ok(_) => Ok(run),
                // An answer lost after the write looks like a failure, so what is there decides.
                Err(e) => match self.read_sealed(&path).await {
                    Err(CheckpointError::NotFound { .. }) => Err(self.failed("write", &path, e)),
                    found => found,
                },
            }
        })
    }

    /// The run's identity, if one was ever written.
    ///
    /// # Errors
    /// `Store`, `Damaged`, `Incompatible`.
    pub fn find_run(&self) -> Result<Option<Run>, CheckpointError> {
        match self.block_on(self.read_sealed(&run_path())) {
            Err(CheckpointError::NotFound { .. }) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Commits a checkpoint whose shards are all written: the manifest appears whole or not at all, and only if no
    /// other writer committed this step. Safe to call again with the same manifest after an error.
    ///
    /// # Errors
    /// `Fenced` if another's manifest is there, `Damaged` if a shard cannot be seen from here, `Invalid` if the
    /// manifest contradicts itself, `Store` if the store failed and nothing was committed as far as can be told.
    pub fn commit(&self, manifest: &Manifest) -> Result<(), CheckpointError> {
        let path = manifest_path(manifest.step);
        let invalid = |reason| CheckpointError::Invalid { path: path.to_string(), reason };
        manifest.check().map_err(invalid)?;
        let bytes = seal(manifest);
        if bytes.len() as u64 > MANIFEST_LIMIT {
            return Err(invalid(format!("it takes {} bytes, more than {MANIFEST_LIMIT}", bytes.len())));
        }
        self.block_on(async {
            // Ranks that write to disks of their own succeed one by one, and only here is it seen.
            self.check_sizes(manifest).await?;
            let Err(error) = self.objects.put_opts(&path, bytes.into(), PutMode::Create.into()).await else {
                return Ok(());
            };
            // "Already exists" may be this very commit, repeated below us after a lost answer: the nonce decides.
            match self.manifest(manifest.step).await {
                Ok(found) if found.nonce == manifest.nonce => Ok(()),
                Ok(found) => Err(CheckpointError::Fenced {
                    uri: self.uri.clone(),
                    step: manifest.step,
                    attempt: found.attempt.to_string(),
                }),
                Err(CheckpointError::NotFound { .. }) => Err(self.failed("write", &path, error)),
                Err(e) => Err(e),
            }
        })
    }

    /// The committed steps, newest first. Whether they verify is not looked at.
    ///
    /// # Errors
    /// `Store` if the store cannot be listed: that is never "none".
    pub fn list(&self) -> Result<Vec<u64>, CheckpointError> {
        let folder = Path::from(MANIFESTS);
        if let Some(root) = &self.root {
            check_listable(root).map_err(|e| store_error(&self.uri, "list", MANIFESTS, e))?;
        }
        let found = self.block_on(self.objects.list_with_delimiter(Some(&folder)));
        let found = found.map_err(|e| self.failed("list", &folder, e))?;
        let names = found.objects.iter().filter_map(|object| object.location.filename());
        let mut steps: Vec<u64> = names.filter_map(step_of_manifest).collect();
        steps.sort_unstable_by(|a, b| b.cmp(a));
        Ok(steps)
    }

    /// The manifest of `step`, with its checksum and its agreement with itself checked, but no shard looked at.
    ///
    /// # Errors
    /// `NotFound`, `Damaged`, `Incompatible`, `Store`.
    pub fn read_manifest(&self, step: u64) -> Result<Manifest, CheckpointError> {
        self.block_on(self.manifest(step))
    }

    pub(crate) async fn manifest(&self, step: u64) -> Result<Manifest, CheckpointError> {
        let path = manifest_path(step);
        let manifest: Manifest = self.read_sealed(&path).await?;
        if manifest.step != step {
            return Err(self.damaged(&path, format!("it is the manifest of step {}", manifest.step)));
        }
        manifest.check().map_err(|reason| self.damaged(&path, reason))?;
        Ok(manifest)
    }

    async fn read_sealed<T: DeserializeOwned>(&self, path: &Path) -> Result<T, CheckpointError> {
        let found = self.objects.get(path).await.map_err(|e| self.failed("read", path, e))?;
        if found.meta.size > MANIFEST_LIMIT {
            let reason = format!("it has {} bytes, no more than {MANIFEST_LIMIT} are read", found.meta.size);
            return Err(self.damaged(path, reason));
        }
        let bytes = found.bytes().await.map_err(|e| self.failed("read", path, e))?;
        unseal(&bytes).map_err(|why| match why {
            Unsealed::Damaged(reason) => self.damaged(path, reason),
            Unsealed::Newer(schema) => CheckpointError::Incompatible {
                uri: self.uri.clone(),
                path: path.to_string(),
                schema,
                supported: SCHEMA,
            },
        })
    }

    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub(crate) fn damaged(&self, path: &Path, reason: impl Into<String>) -> CheckpointError {
        CheckpointError::Damaged { uri: self.uri.clone(), path: path.to_string(), reason: reason.into() }
    }

    /// Sorts a failure of the object store: absent, or unknown.
    pub(crate) fn failed(&self, action: &'static str, path: &Path, error: object_store::Error) -> CheckpointError {
        match error {
            object_store::Error::NotFound { .. } => {
                CheckpointError::NotFound { uri: self.uri.clone(), path: path.to_string(), hint: String::new() }
            }
            error => store_error(&self.uri, action, path.as_ref(), error),
        }
    }
}

fn store_error(
    uri: &str,
    action: &'static str,
    path: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> CheckpointError {
    let path = if path.is_empty() { "its directory" } else { path };
    CheckpointError::Store { uri: uri.into(), action, path: path.into(), source: source.into() }
}

/// object_store lists a directory that is missing, or a file in its place, as empty. A store whose root vanished (a
/// lost mount) must not look like one without checkpoints.
fn check_listable(root: &FsPath) -> io::Result<()> {
    fs::read_dir(root)?;
    let manifests = root.join(MANIFESTS);
    match fs::symlink_metadata(&manifests) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => fs::read_dir(manifests).map(drop),
    }
}

/// Creates a directory and its parents so that they outlive a power cut: each new name is synced into its parent.
fn create_durably(root: &FsPath) -> io::Result<()> {
    let new: Vec<_> = root.ancestors().take_while(|dir| !dir.exists()).collect();
    fs::create_dir_all(root)?;
    new.into_iter().filter_map(FsPath::parent).try_for_each(sync_directory)
}

pub(crate) fn sync_directory(directory: &FsPath) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}
