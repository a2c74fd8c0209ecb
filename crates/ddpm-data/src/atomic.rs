//! Files that others see complete or not at all.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::{Builder, NamedTempFile};

/// Writes the file at `path`, under another name in the same folder until it is complete and on the disk.
pub(crate) fn write(path: &Path, content: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut temporary = temporary_in(path.parent().unwrap_or(Path::new(".")))?;
    content(temporary.as_file_mut())?;
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Fails if files cannot be made in the folder.
pub(crate) fn probe(folder: &Path) -> io::Result<()> {
    temporary_in(folder).map(drop)
}

/// A file of a name that no other process uses, for the users whom the process's mask leaves.
fn temporary_in(folder: &Path) -> io::Result<NamedTempFile> {
    Builder::new().suffix(".tmp").permissions(Permissions::from_mode(0o666)).tempfile_in(folder)
}
