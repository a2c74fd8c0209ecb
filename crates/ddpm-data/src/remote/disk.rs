//! Blocks on the disk: shared by the ranks of a machine and by later runs, and never more than a number of bytes.
//!
//! Each block is a file with its checksum, which appears by renaming; so a process that is killed leaves nothing worse
//! than an unfinished file, which is removed like an old block. What the files take together is written in a file too, which
//! is locked for every change.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use walkdir::WalkDir;

/// The bytes of the checksum at the end of each file.
const CHECKSUM: usize = 4;

/// The blocks in one folder.
pub(super) struct Disk {
    folder: PathBuf,
    limit: u64,
    /// The number of bytes that the files take.
    ledger: Mutex<File>,
    /// Whether writing has failed, which is reported once.
    failed: AtomicBool,
}

/// The ledger while no other thread or process changes it; some file systems have no locks, and the limit is then kept
/// by each process for itself.
struct Locked<'a>(MutexGuard<'a, File>);

impl Disk {
    /// The blocks in `folder`, at most `limit` bytes.
    ///
    /// # Errors
    /// If files cannot be made there.
    pub(super) fn open(folder: PathBuf, limit: u64) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let ledger = File::options().read(true).write(true).create(true).truncate(false).open(folder.join("bytes"))?;
        Ok(Disk { folder, limit, ledger: Mutex::new(ledger), failed: AtomicBool::new(false) })
    }

    /// The most bytes that it holds.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Whether a block is there.
    pub(super) fn has(&self, object: &str, block: u64) -> bool {
        self.path(object, block).exists()
    }

    /// A block, if it is there and undamaged.
    pub(super) fn get(&self, object: &str, block: u64) -> Option<Bytes> {
        let path = self.path(object, block);
        let mut file = File::open(&path).ok()?;
        let mut content = Vec::new();
        file.read_to_end(&mut content).ok()?;
        let valid = content.split_last_chunk::<CHECKSUM>().is_some_and(|(block, sum)| sum_of(block) == *sum);
        if !valid {
            // It will be fetched and written again.
            let _ = fs::remove_file(&path);
            return None;
        }
        content.truncate(content.len() - CHECKSUM);
        // The time of the last use; without it, blocks go in the order in which they came.
        let _ = file.set_modified(SystemTime::now());
        Some(content.into())
    }

    /// Keeps a block, if there is room for it; other blocks have to go, those first that were not used for longest.
    pub(super) fn put(&self, object: &str, block: u64, content: &[u8]) {
        if self.failed.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.write(object, block, content)
            && !self.failed.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "{}: parts of the data set cannot be kept here ({error}), so they are fetched again when they are \
                 needed; make room, or set data.cache_dir or data.cache_gb",
                self.folder.display()
            );
        }
    }

    fn write(&self, object: &str, block: u64, content: &[u8]) -> io::Result<()> {
        let needed = (content.len() + CHECKSUM) as u64;
        if needed > self.limit {
            return Ok(());
        }
        let path = self.path(object, block);
        let mut ledger = self.lock();
        if path.exists() {
            return Ok(());
        }
        let mut taken = ledger.read().map_or_else(|| self.evict(u64::MAX), Ok)?;
        if taken.saturating_add(needed) > self.limit {
            // More than is needed, so that the folder is not searched for every block.
            taken = self.evict((self.limit - needed).min(self.limit / 8 * 7))?;
        }
        fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
        let unfinished = path.with_extension(format!("{}.tmp", process::id()));
        let written = File::create(&unfinished).and_then(|mut file| {
            file.write_all(content)?;
            file.write_all(&sum_of(content))
        });
        let done = written.and_then(|()| fs::rename(&unfinished, &path));
        if done.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        done?;
        ledger.write(taken + needed)
    }

    /// Removes blocks until the others take `limit` bytes at most; returns what they take.
    fn evict(&self, limit: u64) -> io::Result<u64> {
        let mut files = Vec::new();
        for entry in WalkDir::new(&self.folder).min_depth(2).into_iter().filter_map(Result::ok) {
            // Other processes may remove blocks meanwhile.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() {
                files.push((metadata.modified()?, metadata.len(), entry.into_path()));
            }
        }
        files.sort();
        let mut taken: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in files {
            if taken <= limit {
                break;
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => taken -= bytes,
            }
            // Removed only if it is empty.
            let _ = path.parent().map(fs::remove_dir);
        }
        Ok(taken)
    }

    fn path(&self, object: &str, block: u64) -> PathBuf {
        Path::new(&self.folder).join(object).join(block.to_string())
    }

    fn lock(&self) -> Locked<'_> {
        let file = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = file.lock();
        Locked(file)
    }
}

impl Locked<'_> {
    /// The number in the ledger; `None` if it is new or damaged.
    fn read(&mut self) -> Option<u64> {
        let mut text = String::new();
        self.0.rewind().ok()?;
        self.0.read_to_string(&mut text).ok()?;
        text.strip_suffix('\n')?.trim_start().parse().ok()
    }

    fn write(&mut self, taken: u64) -> io::Result<()> {
        self.0.rewind()?;
        // Always equally long: it replaces the last one.
        self.0.write_all(format!("{taken:>20}\n").as_bytes())
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

fn sum_of(content: &[u8]) -> [u8; CHECKSUM] {
    crc32fast::hash(content).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    /// What the files of a cache take.
    fn taken(folder: &Path) -> u64 {
        // Other threads may remove files meanwhile.
        let entries = WalkDir::new(folder).min_depth(2).into_iter().filter_map(Result::ok);
        let files = entries.filter_map(|entry| entry.metadata().ok());
        files.filter(|metadata| metadata.is_file()).map(|metadata| metadata.len()).sum()
    }

    fn content(block: u64, length: usize) -> Vec<u8> {
        (0..length).map(|i| (i as u64 * 31 + block * 7) as u8).collect()
    }

    #[test]
    fn several_processes_share_it_and_keep_the_limit() {
        let dir = TempDir::new().unwrap();
        let caches: Vec<Disk> = (0..3).map(|_| Disk::open(dir.path().to_path_buf(), 50_000).unwrap()).collect();
        thread::scope(|scope| {
            for (number, cache) in caches.iter().enumerate() {
                scope.spawn(move || {
                    for round in 0..200 {
                        let block = (round * 7 + number as u64 * 3) % 120;
                        cache.put("a", block, &content(block, 1000));
                        assert!(taken(&cache.folder) <= 50_000);
                        let other = (round * 5) % 120;
                        if let Some(found) = cache.get("a", other) {
                            assert_eq!(found, content(other, 1000));
                        }
                    }
                });
            }
        });
        let ledger: u64 = fs::read_to_string(dir.path().join("bytes")).unwrap().trim().parse().unwrap();
        assert_eq!(ledger, taken(dir.path()));
        assert!(ledger > 40_000);
    }

    #[test]
    fn damaged_blocks_and_what_a_killed_process_left_are_not_used() {
        let dir = TempDir::new().unwrap();
        let cache = Disk::open(dir.path().to_path_buf(), 10_000).unwrap();
        cache.put("a", 1, &content(1, 3000));
        let path = dir.path().join("a/1");
        for damage in [&content(1, 2000)[..], &[], &content(2, 3004)] {
            fs::write(&path, damage).unwrap();
            assert_eq!(cache.get("a", 1), None);
            cache.put("a", 1, &content(1, 3000));
            assert_eq!(cache.get("a", 1).unwrap(), content(1, 3000));
        }
        fs::write(dir.path().join("a/9.123.tmp"), [0; 4000]).unwrap();
        fs::write(dir.path().join("bytes"), "no number").unwrap();
        let cache = Disk::open(dir.path().to_path_buf(), 10_000).unwrap();
        for block in 2..9 {
            cache.put("b", block, &content(block, 3000));
            assert!(taken(dir.path()) <= 10_000);
        }
        assert_eq!(cache.get("b", 8).unwrap(), content(8, 3000));
        assert!(!dir.path().join("a").exists(), "everything in it was older");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn it_never_exceeds_its_limit_and_returns_what_was_kept(
            limit in 0u64..20_000, writes in prop::collection::vec((0u64..20, 1usize..4000), 1..60),
        ) {
            let dir = TempDir::new().unwrap();
            let cache = Disk::open(dir.path().to_path_buf(), limit).unwrap();
            for (block, length) in writes {
                let object = format!("{length}");
                cache.put(&object, block, &content(block, length));
                prop_assert!(taken(dir.path()) <= limit);
                prop_assert_eq!(cache.has(&object, block), (length + CHECKSUM) as u64 <= limit);
                if let Some(found) = cache.get(&object, block) {
                    prop_assert_eq!(found, content(block, length));
                }
            }
        }
    }
}
