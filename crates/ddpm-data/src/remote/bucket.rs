//! One bucket and the blocks of its files: in memory, on their way, on the disk, or else to be fetched.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ddpm_store::{Limits, Location, environment, patience_or, resolve};
use futures::future::{BoxFuture, FutureExt, Shared};
use object_store::ObjectStore;
use object_store::path::Path;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

use super::disk::Disk;
use super::fetch::{Fetcher, Target};
use super::memory::{BlockId, Memory};
use super::plan::{self, BLOCK};
use super::version::Version;
use crate::DataError;
use crate::source::Traffic;
use crate::unread::Unread;

/// The blocks in memory, in bytes.
const MEMORY: usize = 64 << 20;
/// How many announced requests are on their way at once, each of 4 MiB at most; readers that wait do not queue.
const CONCURRENCY: usize = 16;
/// The part of the disk's blocks that one rank announces before it uses them; up to eight leave half of them.
const SHARES: u64 = 16;
/// The most bytes that are announced before they are used.
const HORIZON: u64 = 512 << 20;
/// A request transfers at most 4 MiB, and is sent again after this long.
const REQUEST: Duration = Duration::from_secs(30);
/// Longer than a store needs to be restarted; a person may have less patience.
const RETRY: Duration = Duration::from_secs(120);

/// A bucket.
pub(crate) struct Bucket {
    shared: Arc<Blocks>,
    runtime: Runtime,
    /// The scheme and the name of the bucket: `s3://bucket/`.
    root: String,
    /// What listings have said of objects.
    listed: Mutex<HashMap<PathBuf, Version>>,
    next: AtomicU64,
}

struct Blocks {
    fetcher: Fetcher,
    disk: Option<Disk>,
    state: Mutex<State>,
    permits: Arc<Semaphore>,
}

struct State {
    memory: Memory,
    flying: HashMap<BlockId, Flight>,
}

/// The request that fetches a block.
#[derive(Clone)]
struct Flight {
    content: Shared<BoxFuture<'static, Result<Bytes, Unread>>>,
    /// Where its content begins in the file.
    start: u64,
}

impl Bucket {
    /// The bucket of an address, with the credentials of the environment. Blocks are kept in `folder`, at most
    /// `limit` bytes of them; 0 keeps none there.
    ///
    /// # Errors
    /// [`DataError::Format`] if the address or the environment is wrong.
    pub(crate) fn of(address: &FilePath, folder: Option<PathBuf>, limit: u64) -> Result<Self, DataError> {
        let text = address.to_string_lossy();
        let (scheme, rest) = text.split_once("://").unwrap_or(("", &text));
        let name = rest.split('/').next().unwrap_or(rest);
        let root = format!("{scheme}://{name}/");
        let limits = Limits { request_timeout: REQUEST, retry_timeout: patience_or(RETRY) };
        let store = match resolve(&root, limits, &environment()) {
            Ok(Location::Objects(store)) => store,
            Ok(Location::Directory(_)) => return Err(DataError::format(address, "this is not an address in a store")),
            Err(reason) => return Err(DataError::format(address, reason)),
        };
        let disk = folder.filter(|_| limit > 0).and_then(|folder| {
            let warn = |error: &io::Error| {
                tracing::warn!(
                    "{}: parts of the data set cannot be kept here ({error}), so they are fetched again when they are \
                     needed; set data.cache_dir",
                    folder.display()
                );
            };
            Disk::open(folder.clone(), limit).inspect_err(warn).ok()
        });
        Self::over(store, root, MEMORY, disk).map_err(DataError::Thread)
    }

    /// The bucket that `store` reaches, with this many bytes of blocks in memory.
    pub(super) fn over(
        store: Arc<dyn ObjectStore>,
        root: String,
        memory: usize,
        disk: Option<Disk>,
    ) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("data").enable_all().build()?;
        let state = State { memory: Memory::new(memory), flying: HashMap::new() };
        let shared = Arc::new(Blocks {
            fetcher: Fetcher::new(store),
            disk,
            state: Mutex::new(state),
            permits: Arc::new(Semaphore::new(CONCURRENCY)),
        });
        Ok(Bucket { shared, runtime, root, listed: Mutex::default(), next: AtomicU64::new(0) })
    }

    /// The requests for contents so far.
    pub(crate) fn traffic(&self) -> Traffic {
        self.shared.fetcher.traffic()
    }

    /// The bytes that should be [announced](Self::announce) ahead of their use: as many as surely stay until then.
    pub(crate) fn horizon(&self) -> u64 {
        let on_disk = self.shared.disk.as_ref().map_or(0, |disk| disk.limit() / SHARES);
        on_disk.clamp(MEMORY as u64 / 2, HORIZON)
    }

    /// The addresses of all objects below a folder, which is one too; sorted.
    pub(crate) fn list(&self, folder: &FilePath) -> Result<Vec<PathBuf>, DataError> {
        let prefix = self.key(folder)?;
        let found = self.runtime.block_on(self.shared.fetcher.list(&prefix, folder))?;
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        listed.extend(found.iter().map(|meta| (self.address(&meta.location), Version::of(meta))));
        let mut files: Vec<PathBuf> = found.iter().map(|meta| self.address(&meta.location)).collect();
        files.sort();
        Ok(files)
    }

    /// The object at an address, in its present state.
    ///
    /// # Errors
    /// [`DataError::Format`] if there is none, [`DataError::Store`] if the store does not say.
    pub(super) fn target(&self, address: &FilePath) -> Result<Target, DataError> {
        let key = self.key(address)?;
        let known = self.listed.lock().unwrap_or_else(PoisonError::into_inner).get(address).cloned();
        // Some stores do not list the names of contents.
        let version = match known.filter(|version| version.tag.is_some()) {
            Some(version) => version,
            None => self.runtime.block_on(self.shared.fetcher.head(&key, address)).map_err(|error| match error {
                Unread::Vanished(_) => DataError::format(address, "there is no such file; correct data.path"),
                error => error.into(),
            })?,
        };
        let (number, path) = (self.next.fetch_add(1, Ordering::Relaxed), address.to_path_buf());
        Ok(Target { number, name: version.name(&address.to_string_lossy()), key, path, version })
    }

    fn address(&self, key: &Path) -> PathBuf {
        PathBuf::from(format!("{}{key}", self.root))
    }

    fn key(&self, address: &FilePath) -> Result<Path, DataError> {
        let text = address.to_string_lossy();
        let key = text.strip_prefix(&self.root).unwrap_or_default().trim_end_matches('/');
        Path::parse(key).map_err(|error| DataError::format(address, format!("{error}; correct data.path")))
    }

    /// Fills `out` with the bytes of an object from `start` on, which are inside it. `extended` says where to stop
    /// fetching, given the blocks that are missing.
    pub(super) fn read(
        &self,
        target: &Arc<Target>,
        start: u64,
        out: &mut [u8],
        extended: impl FnOnce(Range<u64>) -> u64,
    ) -> Result<(), Unread> {
        let end = start + out.len() as u64;
        let mut missing = Vec::new();
        for block in plan::blocks(start..end) {
            match self.shared.held(target, block) {
                Some(content) => copy(&content, block * BLOCK, out, start),
                None => missing.push(block),
            }
        }
        let (Some(first), Some(last)) = (missing.first().copied(), missing.last().copied()) else { return Ok(()) };
        let blocks = plan::blocks(0..target.version.length).end;
        let more = last + 1..extended(first..last + 1).min(blocks);
        let more = more.filter(|block| !self.shared.comes(target, *block));
        let flights = self.request(target, missing.iter().copied().chain(more), None);
        for flight in flights.into_iter().take(missing.len()) {
            let content = self.runtime.block_on(flight.content)?;
            copy(&content, flight.start, out, start);
        }
        Ok(())
    }

    /// Begins to fetch these parts of an object, which will be read soon. Returns the bytes of the requests.
    pub(super) fn announce(&self, target: &Arc<Target>, parts: impl IntoIterator<Item = Range<u64>>) -> u64 {
        let length = target.version.length;
        let parts = parts.into_iter().map(|part| part.start.min(length)..part.end.min(length));
        let wanted: BTreeSet<u64> = parts.flat_map(plan::blocks).collect();
        let missing: Vec<u64> = wanted.into_iter().filter(|block| !self.shared.comes(target, *block)).collect();
        let bytes = missing.len() as u64 * BLOCK;
        self.request(target, missing, Some(&self.shared.permits));
        bytes
    }

    /// Requests blocks, in ascending order, that are not on their way: under a permit each, if there are any. Returns
    /// the request of each block.
    fn request(
        &self,
        target: &Arc<Target>,
        blocks: impl IntoIterator<Item = u64>,
        permits: Option<&Arc<Semaphore>>,
    ) -> Vec<Flight> {
        let id = |block| BlockId { object: target.number, block };
        let blocks: Vec<u64> = blocks.into_iter().collect();
        let mut state = self.shared.state();
        let new: Vec<u64> = blocks.iter().copied().filter(|block| !state.flying.contains_key(&id(*block))).collect();
        for run in plan::merged(new) {
            let (shared, target, permits) = (Arc::clone(&self.shared), Arc::clone(target), permits.cloned());
            let (path, start) = (target.path.clone(), run.start * BLOCK);
            let task = self.runtime.spawn(shared.fetch(target, run.clone(), permits));
            let content = task.map(move |done| {
                let lost = |_| Unread::Store { path, reason: "the request was lost. Please report this".into() };
                done.unwrap_or_else(|error| Err(lost(error)))
            });
            let flight = Flight { content: content.boxed().shared(), start };
            // The task removes them when it has finished, and cannot before the state is unlocked.
            state.flying.extend(run.map(|block| (id(block), flight.clone())));
        }
        blocks.iter().filter_map(|block| state.flying.get(&id(*block)).cloned()).collect()
    }
}

impl Blocks {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block that is in memory or on the disk.
    fn held(&self, target: &Target, block: u64) -> Option<Bytes> {
        let id = BlockId { object: target.number, block };
        if let Some(content) = self.state().memory.get(id) {
            return Some(content);
        }
        let content = self.disk.as_ref()?.get(&target.name, block)?;
        let expected = plan::bytes(block..block + 1, target.version.length);
        if content.len() as u64 != expected.end - expected.start {
            return None;
        }
        self.state().memory.insert(id, content.clone());
        Some(content)
    }

    /// Whether a block need not be requested.
    fn comes(&self, target: &Target, block: u64) -> bool {
        let id = BlockId { object: target.number, block };
        let mut state = self.state();
        if state.memory.get(id).is_some() || state.flying.contains_key(&id) {
            return true;
        }
        drop(state);
        self.disk.as_ref().is_some_and(|disk| disk.has(&target.name, block))
    }

    /// Fetches consecutive blocks and keeps them.
    async fn fetch(
        self: Arc<Self>,
        target: Arc<Target>,
        blocks: Range<u64>,
        permits: Option<Arc<Semaphore>>,
    ) -> Result<Bytes, Unread> {
        let _permit = match permits {
            // The semaphore is never closed.
            Some(permits) => permits.acquire_owned().await.ok(),
            None => None,
        };
        let fetched = self.fetcher.range(&target, plan::bytes(blocks.clone(), target.version.length)).await;
        let part = move |content: &Bytes, block: u64, first: u64| {
            let start = ((block - first) * BLOCK) as usize;
            content.slice(start..content.len().min(start + BLOCK as usize))
        };
        {
            let mut state = self.state();
            for block in blocks.clone() {
                let id = BlockId { object: target.number, block };
                state.flying.remove(&id);
                if let Ok(content) = &fetched {
                    // A copy: a slice would keep all of the request's blocks in memory.
                    state.memory.insert(id, Bytes::copy_from_slice(&part(content, block, blocks.start)));
                }
            }
        }
        let content = fetched?;
        if self.disk.is_some() {
            let whole = content.clone();
            let keep = move || {
                let Some(disk) = &self.disk else { return };
                blocks.clone().for_each(|block| disk.put(&target.name, block, &part(&whole, block, blocks.start)));
            };
            let _ = tokio::task::spawn_blocking(keep).await;
        }
        Ok(content)
    }
}

/// Copies what `content`, which begins at `at` in a file, has of the bytes that begin at `start`.
fn copy(content: &[u8], at: u64, out: &mut [u8], start: u64) {
    let (from, to) = (at.max(start), (at + content.len() as u64).min(start + out.len() as u64));
    if from < to {
        out[(from - start) as usize..(to - start) as usize]
            .copy_from_slice(&content[(from - at) as usize..(to - at) as usize]);
    }
}
