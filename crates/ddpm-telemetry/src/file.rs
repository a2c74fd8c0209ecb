//! Files that others see complete or not at all.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;

/// Writes `bytes` to `path` like [`write_atomic_with`], creating parent directories.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    write_atomic_with(path, |file| file.write_all(bytes))
}

/// Writes `path` by `content`, under another name until it is complete and on the disk: a reader sees either the old or
/// the new file, never a partial one, even after a crash. Several processes may do so at once; the last one counts.
pub fn write_atomic_with(path: &Path, content: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let (temporary, mut file) = create_beside(path)?;
    content(&mut file)?;
    file.sync_all()?;
    fs::rename(&temporary.0, path)
}

/// Fails if files cannot be made in `folder`.
pub fn probe_folder(folder: &Path) -> io::Result<()> {
    create_beside(&folder.join("probe")).map(drop)
}

/// Creates an empty file of a name that no other process uses: process ids are not unique among containers.
fn create_beside(path: &Path) -> io::Result<(Temporary, File)> {
    let number = RandomState::new().hash_one(process::id());
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number:016x}.tmp"));
    let temporary = PathBuf::from(name);
    let file = File::create_new(&temporary)?;
    Ok((Temporary(temporary), file))
}

/// A file that may be incomplete, and whose space is needed on a full disk. Once renamed, there is nothing to remove.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atomic_write_creates_parents_and_leaves_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c.txt");
        write_atomic(&path, b"old").unwrap();
        write_atomic(&path, b"new").unwrap();
        write_atomic_with(&path, |_| Err(io::ErrorKind::StorageFull.into())).unwrap_err();
        probe_folder(path.parent().unwrap()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        probe_folder(&path).unwrap_err();
    }

    #[test]
    fn a_file_that_several_write_at_once_is_one_of_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shared");
        std::thread::scope(|scope| {
            for writer in 0..4u8 {
                let path = &path;
                scope.spawn(move || (0..20).for_each(|_| write_atomic(path, &vec![writer; 10_000]).unwrap()));
            }
        });
        let content = fs::read(&path).unwrap();
        assert_eq!(content, vec![content[0]; 10_000]);
    }
}
