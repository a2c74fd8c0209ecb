//! The objects of one run: the reads that every part of the protocol shares, and how store errors are classified.

use std::{
    fs, io,
    path::{Path as FsPath, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload, PutResult, UpdateVersion, path::Path};
use serde::de::DeserializeOwned;
use ulid::Ulid;

use crate::{
    CheckpointError, Failpoint, Manifest, SCHEMA, StoreOptions,
    layout::{MANIFESTS, aside_path, manifest_path, step_of_manifest},
    manifest::{UnsealError, unseal},
    pace::Learned,
};

/// Upper limit on the size of a manifest, so that a broken store cannot exhaust memory.
pub(crate) const MANIFEST_LIMIT: u64 = 64 << 20;

/// An ETag that no object has.
pub(crate) const STALE_ETAG: &str = "00000000000000000000000000000000";

/// The asynchronous half of a [`Store`](crate::Store), shared with its background tasks.
#[derive(Debug)]
pub(crate) struct Bucket {
    pub uri: String,
    pub objects: Arc<dyn ObjectStore>,
    /// The directory, if the store is one: operations that object_store does not offer for directories use it directly.
    pub root: Option<PathBuf>,
    pub options: StoreOptions,
    /// How many parts to have in flight in each direction.
    pub sending: Learned,
    pub receiving: Learned,
    /// Bytes of shards read so far.
    pub read: AtomicU64,
    /// Objects deleted so far.
    pub deleted: AtomicU64,
    /// Whether the store compares ETags only if they are sent without quotes: see [`update`](Self::update).
    pub bare_etags: AtomicBool,
}

impl Bucket {
    /// The committed steps, newest first.
    pub async fn list(&self) -> Result<Vec<u64>, CheckpointError> {
        let folder = Path::from(MANIFESTS);
        if let Some(root) = &self.root {
            check_listable(root).map_err(|e| store_error(&self.uri, "list", MANIFESTS, e))?;
        }
        let found = self.objects.list_with_delimiter(Some(&folder)).await;
        let found = found.map_err(|e| self.failed("list", &folder, e))?;
        let names = found.objects.iter().filter_map(|object| object.location.filename());
        let mut steps: Vec<u64> = names.filter_map(step_of_manifest).collect();
        steps.sort_unstable_by(|a, b| b.cmp(a));
        Ok(steps)
    }

    /// The manifest of `step`, after checking its checksum and consistency.
    pub async fn manifest(&self, step: u64) -> Result<Manifest, CheckpointError> {
        let path = manifest_path(step);
        let (manifest, _): (Manifest, _) = self.read_sealed(&path).await?;
        if manifest.step != step {
            return Err(self.damaged(&path, format!("it is the manifest of step {}", manifest.step)));
        }
        manifest.check().map_err(|reason| self.damaged(&path, reason))?;
        Ok(manifest)
    }

    /// Takes a manifest out of the history by renaming it to a unique name.
    pub async fn set_aside(&self, step: u64) -> Result<(), CheckpointError> {
        let (from, aside) = (manifest_path(step), aside_path(step));
        tracing::warn!(step, %aside, "checkpoint set aside: training continues from an earlier step");
        self.objects.rename(&from, &aside).await.map_err(|e| self.failed("move", &from, e))?;
        Failpoint::SetAside.reach();
        Ok(())
    }

    /// Reads a sealed object and its version, for a conditional update.
    pub async fn read_sealed<T: DeserializeOwned>(&self, path: &Path) -> Result<(T, UpdateVersion), CheckpointError> {
        let found = self.objects.get(path).await.map_err(|e| self.unread(path, e))?;
        if found.meta.size > MANIFEST_LIMIT {
            let reason = format!("it has {} bytes, more than the limit of {MANIFEST_LIMIT}", found.meta.size);
            return Err(self.damaged(path, reason));
        }
        let version = UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
        let bytes = found.bytes().await.map_err(|e| self.unread(path, e))?;
        let value = unseal(&bytes).map_err(|why| match why {
            UnsealError::Damaged(reason) => self.damaged(path, reason),
            UnsealError::Newer(schema) => CheckpointError::Incompatible {
                uri: self.uri.clone(),
                path: path.to_string(),
                schema,
                supported: SCHEMA,
            },
        })?;
        Ok((value, version))
    }

    /// The version of an object, for a conditional update.
    pub async fn version(&self, path: &Path) -> Result<UpdateVersion, CheckpointError> {
        let found = self.objects.head(path).await.map_err(|e| self.failed("read", path, e))?;
        Ok(UpdateVersion { e_tag: found.e_tag, version: found.version })
    }

    /// Replaces an object that still has this version, or creates one that does not exist if there is none. Directories
    /// have no conditional updates: there the caller holds a lock and has compared.
    pub async fn replace(
        &self,
        path: &Path,
        bytes: PutPayload,
        version: Option<UpdateVersion>,
    ) -> object_store::Result<PutResult> {
        match version {
            _ if self.root.is_some() => self.objects.put_opts(path, bytes, PutMode::Overwrite.into()).await,
            Some(version) => self.update(path, bytes, version).await,
            None => self.objects.put_opts(path, bytes, PutMode::Create.into()).await,
        }
    }

    /// Replaces an object in an object store, provided that it still has this version.
    ///
    /// radosgw counts the quotes around the ETag in a condition as a part of it, so that no condition ever holds. If a
    /// store refuses one that holds, and without quotes refuses one that does not, the quotes are left out from then on.
    pub async fn update(
        &self,
        path: &Path,
        bytes: PutPayload,
        version: UpdateVersion,
    ) -> object_store::Result<PutResult> {
        let put = |version: UpdateVersion| self.objects.put_opts(path, bytes.clone(), PutMode::Update(version).into());
        let e_tag = version.e_tag.as_ref().map(|e_tag| e_tag.replace('"', ""));
        let bare = UpdateVersion { e_tag, version: version.version.clone() };
        if self.bare_etags.load(Ordering::Relaxed) {
            return put(bare).await;
        }
        let refusal = match put(version.clone()).await {
            Err(refusal @ object_store::Error::Precondition { .. }) => refusal,
            done => return done,
        };
        if !self.objects.head(path).await.is_ok_and(|there| there.e_tag == version.e_tag) {
            return Err(refusal);
        }
        // Google goes by the version, which is a number there.
        let stale = UpdateVersion { e_tag: Some(STALE_ETAG.into()), version: Some("1".into()) };
        match put(stale).await {
            Err(object_store::Error::Precondition { .. }) => {}
            Err(_) => return Err(refusal),
            Ok(_) => {
                let source = "the store ignores the condition of a conditional update".into();
                return Err(object_store::Error::NotSupported { source });
            }
        }
        let done = put(bare).await;
        self.bare_etags.store(done.is_ok(), Ordering::Relaxed);
        done
    }

    pub fn damaged(&self, path: &Path, reason: impl Into<String>) -> CheckpointError {
        CheckpointError::Damaged { uri: self.uri.clone(), path: path.to_string(), reason: reason.into() }
    }

    /// An error of the store while changing or listing something. Here "not found" is an error too: the bucket or the
    /// upload is missing.
    pub fn failed(&self, action: &'static str, path: &Path, error: object_store::Error) -> CheckpointError {
        store_error(&self.uri, action, path.as_ref(), error)
    }

    /// Classifies a read error: the object does not exist, or its state is unknown.
    pub fn unread(&self, path: &Path, error: object_store::Error) -> CheckpointError {
        match error {
            object_store::Error::NotFound { .. } => {
                CheckpointError::NotFound { uri: self.uri.clone(), path: path.to_string(), hint: String::new() }
            }
            error => self.failed("read", path, error),
        }
    }
}

pub(crate) fn store_error(
    uri: &str,
    action: &'static str,
    path: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> CheckpointError {
    let path = if path.is_empty() { "its directory" } else { path };
    CheckpointError::Store { uri: uri.into(), action, path: path.into(), source: source.into() }
}

/// Waits before retry number `tries` (from 0) of something that was refused: exponential backoff, half of it random, so
/// that competing writers desynchronise.
pub(crate) async fn pause(tries: u32) {
    let longest = 200u64 << tries.min(5);
    tokio::time::sleep(Duration::from_millis(longest / 2 + Ulid::generate().random() as u64 % (longest / 2))).await;
}

/// object_store lists a missing directory, or a file in its place, as empty. A store whose root has disappeared (a lost
/// mount) must not look like one without checkpoints.
fn check_listable(root: &FsPath) -> io::Result<()> {
    fs::read_dir(root)?;
    let manifests = root.join(MANIFESTS);
    match fs::symlink_metadata(&manifests) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => fs::read_dir(manifests).map(drop),
    }
}
