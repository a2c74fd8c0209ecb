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
use tokio::time::timeout;

use super::version::Version;
use crate::source::Traffic;
use crate::unread::Unread;

/// A request that takes longer than this, and than [`PATIENCE`] times the usual, is sent a second time: most of the
/// slow ones wait for one busy disk of the store.
const SLOW: Duration = Duration::from_secs(1);
const PATIENCE: u32 = 4;
/// It is sent a second time after this long anyway: an outage makes the usual time very long.
const LONGEST: Duration = Duration::from_secs(20);
/// How long to look for the reason of a refusal: in an outage there will be no answer, and the request was repeated for
/// long enough.
const REASON: Duration = Duration::from_secs(5);
/// How often a response is requested that ends too early.
const ATTEMPTS: u32 = 3;

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
        let patience = (PATIENCE * usual).clamp(SLOW, LONGEST);
        let mut first = self.once(target, bytes.clone()).boxed();
        match timeout(patience, &mut first).await {
            Ok(done) => done,
            Err(_) => select_ok([first, self.once(target, bytes).boxed()]).await.map(|(bytes, _)| bytes),
        }
    }

    async fn once(&self, target: &Target, bytes: Range<u64>) -> Result<Bytes, Unread> {
        let (started, wanted) = (Instant::now(), bytes.end - bytes.start);
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut attempts = 0;
        let content = loop {
            let fault = match self.response(target, bytes.clone()).await? {
                Ok(content) if content.len() as u64 == wanted => break content,
                Ok(content) => {
                    let reason = format!("the store returned {} bytes instead of {wanted}. Try again", content.len());
                    Unread::Store { path: target.path.clone(), reason }
                }
                // Where contents have names, the client has continued the response for as long as it may.
                Err(error) if target.version.tag.is_some() => return Err(self.refused(target, error).await),
                Err(error) => self.refused(target, error).await,
            };
            attempts += 1;
            if attempts == ATTEMPTS || !matches!(fault, Unread::Store { .. }) {
                return Err(fault);
            }
        };
        self.bytes.fetch_add(wanted, Ordering::Relaxed);
        let took = started.elapsed().as_micros() as u64;
        let average = |usual: u64| Some(if usual == 0 { took } else { (7 * usual + took) / 8 });
        let _ = self.usual.fetch_update(Ordering::Relaxed, Ordering::Relaxed, average);
        Ok(content)
    }

    /// One response of an object in the right state; the inner error is of a response that ended in the middle.
    async fn response(&self, target: &Target, bytes: Range<u64>) -> Result<object_store::Result<Bytes>, Unread> {
        // A weak name never meets a condition.
        let condition = target.version.tag.clone().filter(|tag| !tag.starts_with("W/"));
        let options = GetOptions { range: Some(bytes.into()), if_match: condition, ..GetOptions::default() };
        let found = match self.store.get_opts(&target.key, options).await {
            Ok(found) => found,
            Err(error) => return Err(self.refused(target, error).await),
        };
        // Not every store knows conditional reads.
        match Version::of(&found.meta).agrees_with(&target.version) {
            true => Ok(found.bytes().await),
            false => Err(Unread::Changed(target.path.clone())),
        }
    }

    /// Why a request failed: a range that is refused may lie beyond the end of an object that has become shorter, and a
    /// response that broke off could not be continued if the object was replaced meanwhile.
    async fn refused(&self, target: &Target, error: Error) -> Unread {
        let refusal = match unread(&target.path, error) {
            refusal @ Unread::Store { .. } => refusal,
            known => return known,
        };
        match timeout(REASON, self.head(&target.key, &target.path)).await {
            Ok(Ok(version)) if !version.agrees_with(&target.version) => Unread::Changed(target.path.clone()),
            Ok(Err(vanished @ Unread::Vanished(_))) => vanished,
            _ => refusal,
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
