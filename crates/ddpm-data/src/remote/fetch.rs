//! The requests: conditional on the state of the object, repeated when they are slow, counted.

use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ddpm_store::explain;
use futures::future::{FutureExt, select_ok};
use object_store::path::Path;
use object_store::{Error, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt};

use super::version::Version;
use crate::source::Traffic;
use crate::unread::Unread;

/// A request that takes longer than this, and than [`PATIENCE`] times the usual, is sent a second time: most of the
/// slow ones wait for one busy disk of the store.
const SLOW: Duration = Duration::from_secs(1);
const PATIENCE: u32 = 4;

/// What a request needs to know of an object.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Its number in this process.
    pub number: u64,
    /// The key in the bucket.
    pub key: Path,
    /// The whole address.
    pub path: PathBuf,
    pub version: Version,
    /// A name for this state of it.
    pub name: String,
}

/// The client of one bucket.
pub(super) struct Fetcher {
    store: Arc<dyn ObjectStore>,
    requests: AtomicU64,
    bytes: AtomicU64,
    /// How long a request takes, in microseconds: a moving average.
    usual: AtomicU64,
}

impl Fetcher {
    pub(super) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Fetcher { store, requests: AtomicU64::new(0), bytes: AtomicU64::new(0), usual: AtomicU64::new(0) }
    }

    /// The requests for contents so far.
    pub(super) fn traffic(&self) -> Traffic {
        Traffic { requests: self.requests.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }

    /// All objects below a prefix that ends at a `/` of their keys.
    pub(super) async fn list(&self, prefix: &Path, shown: &FilePath) -> Result<Vec<ObjectMeta>, Unread> {
        use futures::TryStreamExt;
        self.store.list(Some(prefix)).try_collect().await.map_err(|error| unread(shown, error))
    }

    /// The state of an object.
    pub(super) async fn head(&self, key: &Path, shown: &FilePath) -> Result<Version, Unread> {
        self.store.head(key).await.map(|meta| Version::of(&meta)).map_err(|error| unread(shown, error))
    }

    /// These bytes of an object that is still in the state that was opened.
    pub(super) async fn range(&self, target: &Target, bytes: Range<u64>) -> Result<Bytes, Unread> {
        let usual = Duration::from_micros(self.usual.load(Ordering::Relaxed));
        let patience = SLOW.max(PATIENCE * usual);
        let mut first = self.once(target, bytes.clone()).boxed();
        match tokio::time::timeout(patience, &mut first).await {
            Ok(done) => done,
            Err(_) => select_ok([first, self.once(target, bytes).boxed()]).await.map(|(bytes, _)| bytes),
        }
    }

    async fn once(&self, target: &Target, bytes: Range<u64>) -> Result<Bytes, Unread> {
        let (started, wanted) = (Instant::now(), bytes.end - bytes.start);
        let options =
            GetOptions { range: Some(bytes.into()), if_match: target.version.tag.clone(), ..GetOptions::default() };
        self.requests.fetch_add(1, Ordering::Relaxed);
        let found = match self.store.get_opts(&target.key, options).await {
            Ok(found) => found,
            Err(error) => return Err(self.refused(target, error).await),
        };
        // Not every store knows conditional reads.
        if !Version::of(&found.meta).agrees_with(&target.version) {
            return Err(Unread::Changed(target.path.clone()));
        }
        let content = found.bytes().await.map_err(|error| unread(&target.path, error))?;
        self.bytes.fetch_add(content.len() as u64, Ordering::Relaxed);
        if content.len() as u64 != wanted {
            let reason = format!("the store returned {} bytes instead of {wanted}. Try again", content.len());
            return Err(Unread::Store { path: target.path.clone(), reason });
        }
        let took = started.elapsed().as_micros() as u64;
        let average = |usual: u64| Some(if usual == 0 { took } else { (7 * usual + took) / 8 });
        let _ = self.usual.fetch_update(Ordering::Relaxed, Ordering::Relaxed, average);
        Ok(content)
    }

    /// Why a request failed: a range that is refused may lie beyond the end of an object that has become shorter.
    async fn refused(&self, target: &Target, error: Error) -> Unread {
        match unread(&target.path, error) {
            refusal @ Unread::Store { .. } => match self.head(&target.key, &target.path).await {
                Ok(version) if !version.agrees_with(&target.version) => Unread::Changed(target.path.clone()),
                _ => refusal,
            },
            known => known,
        }
    }
}

fn unread(path: &FilePath, error: Error) -> Unread {
    match error {
        Error::NotFound { .. } => Unread::Vanished(path.to_path_buf()),
        Error::Precondition { .. } => Unread::Changed(path.to_path_buf()),
        error => Unread::Store { path: path.to_path_buf(), reason: explain(&error) },
    }
}
