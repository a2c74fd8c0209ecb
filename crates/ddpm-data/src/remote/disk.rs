//! Blocks on the disk: shared by the ranks of a machine and by later runs, and never more than a number of bytes.
//!
//! Each block is a file with its checksum, which is verified whenever it is read; so nothing need be flushed to the
//! disk, and what a power cut damages is fetched again. A file appears by renaming; so a process that is killed leaves
//! nothing worse than an unfinished file, which the next one removes. What the files take together is written in a file
//! too, which is locked for every change.

use std::collections::hash_map::RandomState;
use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use walkdir::WalkDir;

/// The bytes of the checksum at the end of each file.
const CHECKSUM: usize = 4;
/// How many blocks' writers may wait for each other: one process that is suspended at the wrong moment makes all others
/// wait, and what they hold is in memory.
const WRITERS: usize = 128;
/// How the names of unfinished files begin.
const UNFINISHED: &str = "unfinished-";
/// After this long nobody can still be writing a block: where there are no locks that would say so.
const ABANDONED: Duration = Duration::from_secs(3600);

/// The blocks in one folder.
pub(super) struct Disk {
    folder: PathBuf,
    limit: u64,
    /// The number of bytes that the files take.
    ledger: Mutex<File>,
    /// Distinguishes it from all others in the folder: process ids are not unique among containers and machines.
    nonce: u64,
    /// Counts the files that it has begun.
    begun: AtomicU64,
    /// The threads that write, or wait until they can.
    writers: AtomicUsize,
    /// Whether writing has failed, which is reported once.
    failed: AtomicBool,
}

/// The ledger while no other thread or process changes it.
struct Locked<'a> {
    file: MutexGuard<'a, File>,
    /// Some file systems have no locks, and the limit is then kept by each process for itself.
    alone: bool,
}

impl Disk {
    /// The blocks in `folder`, at most `limit` bytes.
    ///
    /// # Errors
    /// If files cannot be made there.
    pub(super) fn open(folder: PathBuf, limit: u64) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let ledger = File::options().read(true).write(true).create(true).truncate(false).open(folder.join("bytes"))?;
        let nonce = RandomState::new().build_hasher().finish();
        let (begun, writers, failed) = (AtomicU64::new(0), AtomicUsize::new(0), AtomicBool::new(false));
        let disk = Disk { folder, limit, ledger: Mutex::new(ledger), nonce, begun, writers, failed };
        disk.clean()?;
        Ok(disk)
    }

    /// Removes what killed processes left, unless another process is writing: then that one has done so.
    fn clean(&self) -> io::Result<()> {
        let ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        match ledger.try_lock() {
            Ok(()) => self.remove_unfinished(true).and(ledger.unlock()),
            Err(TryLockError::WouldBlock) => Ok(()),
            Err(TryLockError::Error(error)) => {
                tracing::warn!(
                    "{}: files cannot be locked here ({error}), so processes that share this folder may together \
                     exceed data.cache_gb; set data.cache_dir to a disk of this machine",
                    self.folder.display()
                );
                self.remove_unfinished(false)
            }
        }
    }

    /// The most bytes that it holds.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Whether a block is there; it then counts as used, so that it stays until it is read.
    pub(super) fn keeps(&self, object: &str, block: u64) -> bool {
        File::open(self.path(object, block)).inspect(mark_used).is_ok()
    }

    /// A block of this length, if it is there and undamaged.
    pub(super) fn get(&self, object: &str, block: u64, length: usize) -> Option<Bytes> {
        let path = self.path(object, block);
        let mut file = File::open(&path).ok()?;
        let mut content = Vec::with_capacity(length + CHECKSUM);
        file.read_to_end(&mut content).ok()?;
        let parts = content.split_last_chunk::<CHECKSUM>();
        if !parts.is_some_and(|(block, sum)| block.len() == length && sum_of(block) == *sum) {
            // It will be fetched and written again.
            let _ = fs::remove_file(&path);
            return None;
        }
        content.truncate(length);
        mark_used(&file);
        Some(content.into())
    }

    /// Keeps a block, if there is room for it; other blocks have to go, those first that were not used for longest.
    pub(super) fn put(&self, object: &str, block: u64, content: &[u8]) {
        if self.failed.load(Ordering::Relaxed) {
            return;
        }
        let others = self.writers.fetch_add(1, Ordering::Relaxed);
        let written = if others < WRITERS { self.write(object, block, content) } else { Ok(()) };
        self.writers.fetch_sub(1, Ordering::Relaxed);
        match written {
            // Where there are no locks, another process may have removed the folder or the file as too old.
            Err(error) if error.kind() != io::ErrorKind::NotFound && !self.failed.swap(true, Ordering::Relaxed) => {
                tracing::warn!(
                    "{}: parts of the data set cannot be kept here ({error}), so they are fetched again when they are \
                     needed; make room, or set data.cache_dir or data.cache_gb",
                    self.folder.display()
                );
            }
            _ => {}
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
        let mut taken = ledger.read().map_or_else(|| self.evict(u64::MAX, ledger.alone), Ok)?;
        if taken.saturating_add(needed) > self.limit {
            // More than is needed, so that the folder is not searched for every block.
            taken = self.evict((self.limit - needed).min(self.limit / 8 * 7), ledger.alone)?;
        }
        // First: if the process is killed before the file is there, the number is too large, and the next search of the
        // folder corrects it. Otherwise the files would take more than the limit.
        ledger.write(taken + needed)?;
        fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
        let unfinished = self.unfinished();
        let written = File::create_new(&unfinished).and_then(|mut file| {
            file.write_all(content)?;
            file.write_all(&sum_of(content))
        });
        let done = written.and_then(|()| fs::rename(&unfinished, &path));
        if done.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        done
    }

    /// Removes blocks until the others take `limit` bytes at most; returns what they take. `alone` says that no other
    /// process is writing.
    fn evict(&self, limit: u64, alone: bool) -> io::Result<u64> {
        self.remove_unfinished(alone)?;
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

    /// Removes unfinished files: all of them, as nobody else is writing, or those that are too old to be continued.
    fn remove_unfinished(&self, alone: bool) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                continue;
            }
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            let is_old = || modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > ABANDONED));
            if alone || is_old() {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    fn path(&self, object: &str, block: u64) -> PathBuf {
        Path::new(&self.folder).join(object).join(block.to_string())
    }

    /// A name that no other file has had.
    fn unfinished(&self) -> PathBuf {
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        self.folder.join(format!("{UNFINISHED}{:016x}-{number}", self.nonce))
    }

    fn lock(&self) -> Locked<'_> {
        let file = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let alone = file.lock().is_ok();
        Locked { file, alone }
    }
}

impl Locked<'_> {
    /// The number in the ledger; `None` if it is new or damaged.
    fn read(&mut self) -> Option<u64> {
        let mut text = String::new();
        self.file.rewind().ok()?;
        self.file.read_to_string(&mut text).ok()?;
        text.strip_suffix('\n')?.trim_start().parse().ok()
    }

    fn write(&mut self, taken: u64) -> io::Result<()> {
        self.file.rewind()?;
        // Always equally long: it replaces the last one.
        self.file.write_all(format!("{taken:>20}\n").as_bytes())
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

/// Sets the time of the last use; where that is not allowed, blocks go in the order in which they came.
fn mark_used(file: &File) {
    let _ = file.set_modified(SystemTime::now());
}

fn sum_of(content: &[u8]) -> [u8; CHECKSUM] {
    crc32fast::hash(content).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
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
                        if let Some(found) = cache.get("a", other, 1000) {
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
        let shorter = [&content(1, 2000)[..], &sum_of(&content(1, 2000))].concat();
        // Of zeros, as after a power cut; the last ones have valid checksums, but other lengths.
        for damage in [&content(1, 2000)[..], &content(2, 3004), &[], &[0; 3004], &[0; CHECKSUM], &shorter] {
            fs::write(&path, damage).unwrap();
            assert_eq!(cache.get("a", 1, 3000), None);
            assert!(!cache.keeps("a", 1));
            cache.put("a", 1, &content(1, 3000));
            assert_eq!(cache.get("a", 1, 3000).unwrap(), content(1, 3000));
        }
        fs::write(dir.path().join("a/9.123.tmp"), [0; 4000]).unwrap();
        fs::write(dir.path().join("bytes"), "no number").unwrap();
        let cache = Disk::open(dir.path().to_path_buf(), 10_000).unwrap();
        for block in 2..9 {
            cache.put("b", block, &content(block, 3000));
            assert!(taken(dir.path()) <= 10_000);
        }
        assert_eq!(cache.get("b", 8, 3000).unwrap(), content(8, 3000));
        assert!(!dir.path().join("a").exists(), "everything in it was older");
    }

    #[test]
    fn unfinished_files_have_names_of_their_own_and_do_not_stay() {
        let dir = TempDir::new().unwrap();
        let open = || Disk::open(dir.path().to_path_buf(), 10_000).unwrap();
        let (one, other) = (open(), open());
        let names: HashSet<PathBuf> = [&one, &one, &other, &other].into_iter().map(Disk::unfinished).collect();
        assert_eq!(names.len(), 4);
        // Besides the ledger.
        let left = || fs::read_dir(dir.path()).unwrap().count() - 1;
        // A process that is killed: the next one removes its file, and so does one that has to make room.
        names.iter().for_each(|name| fs::write(name, [0; 4000]).unwrap());
        drop(open());
        assert_eq!(left(), 0);
        names.iter().for_each(|name| fs::write(name, [0; 4000]).unwrap());
        (0..4).for_each(|block| one.put("a", block, &content(block, 3000)));
        assert_eq!(left(), 1, "the folder of the blocks");
        // Where there are no locks, a file may be of a process that is still writing.
        names.iter().for_each(|name| fs::write(name, [0; 4000]).unwrap());
        for name in names.iter().take(3) {
            File::options().write(true).open(name).unwrap().set_modified(SystemTime::now() - 2 * ABANDONED).unwrap();
        }
        one.remove_unfinished(false).unwrap();
        assert_eq!(left(), 2);
    }

    #[test]
    fn a_block_that_cannot_be_placed_does_not_let_the_others_exceed_the_limit() {
        let dir = TempDir::new().unwrap();
        let cache = Disk::open(dir.path().to_path_buf(), 10_000).unwrap();
        cache.put("a", 1, &content(1, 3000));
        let recorded = || fs::read_to_string(dir.path().join("bytes")).unwrap().trim().parse::<u64>().unwrap();
        assert_eq!(recorded(), 3004);
        // Its folder cannot be made, as if the process had been killed just before.
        fs::write(dir.path().join("b"), "").unwrap();
        cache.put("b", 1, &content(1, 3000));
        assert!(recorded() >= 6008, "counted before it is there");
    }

    #[test]
    fn writers_do_not_pile_up_behind_a_process_that_is_suspended() {
        let dir = TempDir::new().unwrap();
        let [suspended, cache] = [(); 2].map(|()| Disk::open(dir.path().to_path_buf(), 1_000_000).unwrap());
        let held = suspended.lock();
        thread::scope(|scope| {
            for block in 0..WRITERS as u64 {
                let cache = &cache;
                scope.spawn(move || cache.put("a", block, &content(block, 100)));
            }
            while cache.writers.load(Ordering::Relaxed) < WRITERS {
                thread::sleep(Duration::from_millis(10));
            }
            // This one would not return.
            cache.put("a", 1000, &content(1000, 100));
            drop(held);
        });
        assert!(!cache.keeps("a", 1000) && (0..WRITERS as u64).all(|block| cache.keeps("a", block)));
        cache.put("a", 1000, &content(1000, 100));
        assert!(cache.keeps("a", 1000));
    }

    #[test]
    fn a_block_that_was_announced_stays_longer_than_others() {
        let dir = TempDir::new().unwrap();
        let cache = Disk::open(dir.path().to_path_buf(), 10_000).unwrap();
        for block in 1..4 {
            cache.put("a", block, &content(block, 3000));
            let written = File::options().write(true).open(dir.path().join(format!("a/{block}"))).unwrap();
            written.set_modified(SystemTime::now() - Duration::from_secs(100 - block)).unwrap();
        }
        assert!(cache.keeps("a", 1) && !cache.keeps("a", 9));
        cache.put("a", 4, &content(4, 3000));
        let there = [1, 2, 3, 4].map(|block| dir.path().join(format!("a/{block}")).exists());
        assert_eq!(there, [true, false, true, true]);
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
                prop_assert_eq!(cache.keeps(&object, block), (length + CHECKSUM) as u64 <= limit);
                if let Some(found) = cache.get(&object, block, length) {
                    prop_assert_eq!(found, content(block, length));
                }
            }
        }
    }
}
