//! One bucket: finding its files, reading them, announcing what will be read.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ddpm_store::{Limits, Location, environment, patience_or, resolve};
use object_store::ObjectStore;
use object_store::path::Path;
use tokio::runtime::{Builder, Handle, Runtime};

use super::blocks::{Blocks, part};
use super::disk::Disk;
use super::fetch::{Fetcher, Target};
use super::plan::{self, BLOCK, LARGEST};
use super::version::Version;
use crate::DataError;
use crate::interrupt::unless_stopped;
use crate::source::Traffic;
use crate::unread::Unread;

/// The blocks in memory, in bytes.
const MEMORY: usize = 64 << 20;
/// How many announced requests are on their way at once, each of 4 MiB at most.
pub(super) const CONCURRENCY: usize = 16;
/// How many blocks one reader requests at once: four requests.
const WAVE: u64 = 4 * LARGEST;
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
    blocks: Arc<Blocks>,
    /// Ends with the bucket.
    runtime: Option<Runtime>,
    handle: Handle,
    /// The scheme and the name of the bucket: `s3://bucket/`.
    root: String,
    /// What listings have said of objects.
    listed: Mutex<HashMap<PathBuf, Version>>,
    next: AtomicU64,
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
        Self::over(store, root, MEMORY, CONCURRENCY, disk).map_err(DataError::Thread)
    }

    /// The bucket that `store` reaches, with this many bytes of blocks in memory, and announced requests at once.
    pub(super) fn over(
        store: Arc<dyn ObjectStore>,
        root: String,
        memory: usize,
        concurrency: usize,
        disk: Option<Disk>,
    ) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("data").enable_all().build()?;
        let handle = runtime.handle().clone();
        let blocks = Blocks::new(Fetcher::new(store), memory, concurrency, disk, handle.clone());
        Ok(Bucket { blocks, runtime: Some(runtime), handle, root, listed: Mutex::default(), next: AtomicU64::new(0) })
    }

    /// The requests for contents so far.
    pub(crate) fn traffic(&self) -> Traffic {
        self.blocks.fetcher.traffic()
    }

    /// The bytes that should be [announced](Self::announce) ahead of their use: as many as surely stay until then.
    pub(crate) fn horizon(&self) -> u64 {
        let on_disk = self.blocks.disk.as_ref().map_or(0, |disk| disk.limit() / SHARES);
        on_disk.clamp(MEMORY as u64 / 2, HORIZON)
    }

    /// The addresses of all objects below a folder, which is one too; sorted.
    pub(crate) fn list(&self, folder: &FilePath) -> Result<Vec<PathBuf>, DataError> {
        let prefix = self.key(folder)?;
        let found = self.handle.block_on(unless_stopped(self.blocks.fetcher.list(&prefix, folder)))?;
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
            None => {
                let found = self.handle.block_on(unless_stopped(self.blocks.fetcher.head(&key, address)));
                found.map_err(|error| match error {
                    Unread::Vanished(_) => DataError::format(address, "there is no such file; correct data.path"),
                    error => error.into(),
                })?
            }
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
        extended: impl Fn(Range<u64>) -> u64,
    ) -> Result<(), Unread> {
        if out.is_empty() {
            return Ok(());
        }
        let blocks = plan::blocks(start..start + out.len() as u64);
        for first in blocks.clone().step_by(WAVE as usize) {
            let mut missing = Vec::new();
            for block in first..(first + WAVE).min(blocks.end) {
                match self.blocks.held(target, block) {
                    Some(content) => copy(&content, block * BLOCK, out, start),
                    None => missing.push(block),
                }
            }
            let (Some(from), Some(last)) = (missing.first().copied(), missing.last().copied()) else { continue };
            let end = plan::blocks(0..target.version.length).end;
            let more = last + 1..extended(from..last + 1).min(end);
            for (block, flight) in missing.iter().zip(self.blocks.demand(target, &missing, more)) {
                let content = self.handle.block_on(unless_stopped(flight.content))?;
                copy(part(&content, flight.start, *block), block * BLOCK, out, start);
                self.blocks.read(target, *block);
            }
        }
        Ok(())
    }

    /// Begins to fetch these parts of an object, which will be read soon. Returns the bytes of the requests.
    pub(super) fn announce(&self, target: &Arc<Target>, parts: impl IntoIterator<Item = Range<u64>>) -> u64 {
        let length = target.version.length;
        let inside = parts.into_iter().map(|part| part.start.min(length)..part.end.min(length));
        // An empty part would count as the block around it.
        let wanted: BTreeSet<u64> = inside.filter(|part| !part.is_empty()).flat_map(plan::blocks).collect();
        self.blocks.announce(target, wanted) * BLOCK
    }
}

impl Drop for Bucket {
    /// Gives up requests and look-ups of names, which may last as long as an outage.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
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
