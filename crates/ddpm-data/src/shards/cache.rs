//! The folder of indexes: each shard is scanned once, by one process, and again only if it has changed.

use std::fs::{self, File, TryLockError};
use std::io;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;

use ddpm_telemetry::{probe_folder, write_atomic_with};

use super::index::{decode, encode};
use super::record::Records;
use super::stamp::Stamp;
use crate::DataError;
use crate::hash::Fingerprint;
use crate::interrupt::{LOOK, is_stopped};
use crate::remote::is_address;
use crate::user_caches::user_caches;

/// Where indexes and decompressed files are kept.
pub(super) struct Cache {
    /// `None` if there is no such folder, so that each process scans for itself.
    folder: Option<PathBuf>,
}

/// A file of the cache that no other process writes at the same time.
pub(super) struct Slot {
    pub path: PathBuf,
    /// Held until the slot is dropped. Some file systems have no locks; two processes then do the same work.
    _lock: Option<File>,
}

impl Cache {
    /// The cache in `folder`, or else in the user's cache folder. If it cannot be written to, a warning says so.
    pub(super) fn at(folder: Option<&Path>) -> Self {
        let Some(folder) = folder.map(Path::to_path_buf).or_else(default_folder) else {
            tracing::warn!("there is no folder for indexes of data sets, as HOME is not set; set data.cache_dir");
            return Cache { folder: None };
        };
        let writable = fs::create_dir_all(&folder).and_then(|()| probe_folder(&folder));
        if let Err(error) = writable {
            tracing::warn!(
                "{}: indexes of the data set cannot be kept here ({error}), so each start scans it; set data.cache_dir",
                folder.display()
            );
            return Cache { folder: None };
        }
        Cache { folder: Some(folder) }
    }

    /// The records of the shard at `path`, from its index or else by `scan`; `key` is whatever else the scan depends
    /// on.
    pub(super) fn records(
        &self,
        path: &Path,
        stamp: Stamp,
        key: &str,
        scan: impl FnOnce() -> Result<Records, DataError>,
    ) -> Result<Records, DataError> {
        let Some(index) = self.name(path, key, "index") else { return scan() };
        let kept = |index: &Path| decode(&fs::read(index).ok()?, stamp, key);
        if let Some(records) = kept(&index) {
            return Ok(records);
        }
        let slot = Slot::lock(index);
        if let Some(records) = kept(&slot.path) {
            return Ok(records);
        }
        let records = scan()?;
        if let Err(error) = slot.replace(|file| file.write_all(&encode(stamp, key, &records))) {
            tracing::warn!(
                "{}: the index cannot be written ({error}); the next start scans again",
                slot.path.display()
            );
        }
        Ok(records)
    }

    /// The folder of the parts of files in object stores.
    pub(super) fn blocks(&self) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join("blocks"))
    }

    /// The slot of a file that is made from the one at `path`, for this process alone.
    pub(super) fn slot(&self, path: &Path, key: &str, ending: &str) -> Option<Slot> {
        self.name(path, key, ending).map(Slot::lock)
    }

    /// The name in the cache of what is made from `path`: readable, and different for each path and `key`.
    fn name(&self, path: &Path, key: &str, ending: &str) -> Option<PathBuf> {
        let mut hash = Fingerprint::default();
        let absolute = Some(path).filter(|path| !is_address(path)).and_then(|path| std::path::absolute(path).ok());
        let absolute = absolute.unwrap_or_else(|| path.to_path_buf());
        hash.add(absolute.as_os_str().as_encoded_bytes());
        hash.add(key.as_bytes());
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Some(self.folder.as_ref()?.join(format!("{name}-{:016x}.{ending}", hash.value())))
    }
}

impl Slot {
    fn lock(path: PathBuf) -> Self {
        let lock = File::create(path.with_extension("lock")).ok().filter(wait_for_lock);
        Slot { path, _lock: lock }
    }

    /// Writes the file so that others see it complete or not at all.
    pub(super) fn replace(&self, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        write_atomic_with(&self.path, write)
    }
}

/// Whether the file is locked for this process; waits until no other holds the lock, unless this thread is to stop.
fn wait_for_lock(file: &File) -> bool {
    loop {
        match file.try_lock() {
            Ok(()) => return true,
            Err(TryLockError::WouldBlock) if !is_stopped() => thread::sleep(LOOK),
            Err(_) => return false,
        }
    }
}

fn default_folder() -> Option<PathBuf> {
    Some(user_caches()?.join("ddpm-dist/data"))
}
