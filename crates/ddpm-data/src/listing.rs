//! The contents of a folder: its images, its sub-folders, and what is ignored.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::{fs, io};

use walkdir::{DirEntry, WalkDir};

use crate::findings::{Findings, MAX_LISTED, some_of};
use crate::{DataError, celeba};

/// Extensions of the files that are read, in lower case.
const IMAGES: [&str; 11] = ["bmp", "gif", "jfif", "jpe", "jpeg", "jpg", "npy", "png", "tif", "tiff", "webp"];
/// Folders that operating systems create on any disk or in any archive for their own use. Like hidden files, including
/// the `._name.jpg` that macOS leaves next to each image, they are ignored.
const SYSTEM: [&str; 5] = ["$RECYCLE.BIN", "@eaDir", "System Volume Information", "__MACOSX", "lost+found"];

/// The contents of a folder at any depth. Links are followed.
#[derive(Default)]
pub(crate) struct Listing {
    /// Everything named like an image, sorted by path: files, and broken links.
    pub images: Vec<PathBuf>,
    /// The names of the folders directly below, sorted, with or without images.
    pub folders: Vec<OsString>,
    /// Files named like CelebA's list of splits.
    pub partitions: Vec<PathBuf>,
    /// What else was found.
    pub findings: Findings,
}

/// Entries that cannot be read, by path below the folder.
#[derive(Default)]
struct Unreadable {
    broken: Vec<String>,
    loops: Vec<String>,
    folders: Vec<String>,
    not_files: Vec<String>,
}

/// The images below a folder, at any depth, that a data set would count; none if the folder does not exist.
///
/// # Errors
/// [`DataError::Io`] if it cannot be read.
pub fn images_below(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(DataError::io(folder)(error)),
        Ok(_) => {
            let Listing { images, findings, .. } = Listing::of(folder)?;
            findings.log();
            Ok(images)
        }
    }
}

impl Listing {
    /// Lists `home`.
    ///
    /// # Errors
    /// [`DataError::Io`] if `home` itself cannot be read. Unreadable entries below it are ignored with a warning; an
    /// unreadable image is detected when it is read.
    pub(crate) fn of(home: &Path) -> Result<Self, DataError> {
        let real = home.canonicalize().map_err(DataError::io(home))?;
        let (mut listing, mut unreadable) = (Listing::default(), Unreadable::default());
        let walk = WalkDir::new(home).follow_links(true).into_iter();
        let mut walk = walk.filter_entry(|entry| entry.depth() == 0 || is_visible(entry.file_name()));
        while let Some(entry) = walk.next() {
            match entry {
                // A link to a folder that contains this one would list every image twice.
                Ok(entry) if links_to_parent(&entry, &real) => {
                    unreadable.loops.push(below(home, entry.path()));
                    walk.skip_current_dir();
                }
                Ok(entry) => listing.add(home, &entry, &mut unreadable),
                Err(error) => listing.add_unreadable(home, error, &mut unreadable)?,
            }
        }
        listing.add_closed_links(home, &mut unreadable);
        listing.images.sort();
        listing.folders.sort();
        listing.partitions.sort();
        listing.findings.warnings = unreadable.warnings(home);
        Ok(listing)
    }

    fn add(&mut self, home: &Path, entry: &DirEntry, unreadable: &mut Unreadable) {
        let (kind, path) = (entry.file_type(), entry.path());
        if kind.is_dir() {
            if entry.depth() == 1 {
                self.folders.push(entry.file_name().to_owned());
            }
        } else if is_image(path) {
            if kind.is_file() {
                self.images.push(path.to_path_buf());
            } else {
                unreadable.not_files.push(below(home, path));
            }
        } else {
            self.ignore(path);
            if celeba::is_partition(path) {
                self.partitions.push(path.to_path_buf());
            }
        }
    }

    /// Records an entry that could not be read: a broken or circular link, a folder without permission.
    fn add_unreadable(
        &mut self,
        home: &Path,
        error: walkdir::Error,
        unreadable: &mut Unreadable,
    ) -> Result<(), DataError> {
        let Some(path) = error.path().map(Path::to_path_buf).or((error.depth() == 0).then(|| home.to_path_buf()))
        else {
            // walkdir does not say which: see `add_closed_links`.
            return Ok(());
        };
        if path == home {
            let source = error.into_io_error().unwrap_or_else(|| io::Error::other("it is a link to itself"));
            return Err(DataError::Io { path, source });
        }
        if !is_visible(path.file_name().unwrap_or_default()) {
            return Ok(());
        }
        if error.loop_ancestor().is_some() {
            unreadable.loops.push(below(home, &path));
            return Ok(());
        }
        let is_link = path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
        if is_link {
            unreadable.broken.push(below(home, &path));
        }
        if is_image(&path) {
            self.images.push(path);
        } else if !is_link {
            let cause = error.io_error().map(|cause| format!(" ({cause})")).unwrap_or_default();
            unreadable.folders.push(format!("{}{cause}", below(home, &path)));
        } else if path.extension().is_some() {
            self.ignore(&path);
        } else if error.depth() == 1 {
            // Probably a folder on a disk that is not mounted: as a class it keeps its number.
            self.folders.extend(path.file_name().map(OsStr::to_owned));
        }
        Ok(())
    }

    /// Records links directly below `home` to folders that may not be read, which as classes keep their numbers.
    fn add_closed_links(&mut self, home: &Path, unreadable: &mut Unreadable) {
        for entry in fs::read_dir(home).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_symlink())
                && path.is_dir()
                && is_visible(&entry.file_name())
                && let Err(cause) = fs::read_dir(&path)
            {
                unreadable.folders.push(format!("{} ({cause})", below(home, &path)));
                if !self.folders.contains(&entry.file_name()) {
                    self.folders.push(entry.file_name());
                }
            }
        }
    }

    fn ignore(&mut self, path: &Path) {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        *self.findings.ignored.0.entry(extension).or_default() += 1;
    }
}

impl Unreadable {
    fn warnings(self, home: &Path) -> Vec<String> {
        let kinds = [
            (self.broken, "broken links", "Restore their targets, or remove them."),
            (self.loops, "links to a folder that contains them, not followed", "Remove them."),
            (self.folders, "folders that cannot be read, so their images are not used", "Make them readable."),
            (self.not_files, "named like images but neither files nor folders, ignored", "Rename or remove them."),
        ];
        let found = kinds.into_iter().filter(|(paths, ..)| !paths.is_empty());
        found
            .map(|(mut paths, what, remedy)| {
                paths.sort();
                format!("{}: {what}: {}. {remedy}", home.display(), some_of(paths, MAX_LISTED))
            })
            .collect()
    }
}

/// Whether files with this name are read.
pub(crate) fn is_image(path: &Path) -> bool {
    let extension = path.extension().map(OsStr::to_ascii_lowercase);
    extension.is_some_and(|extension| IMAGES.iter().any(|image| extension == *image))
}

pub(crate) fn is_visible(name: &OsStr) -> bool {
    !name.as_encoded_bytes().starts_with(b".") && !SYSTEM.iter().any(|system| name == *system)
}

/// Whether no part of the name of a file inside another one is hidden; it may begin with `./`.
pub(crate) fn is_visible_name(name: &str) -> bool {
    name.split('/').all(|part| part.is_empty() || part == "." || is_visible(part.as_ref()))
}

/// Whether this is a link to `real`, the folder being listed, or to a folder that contains it.
fn links_to_parent(entry: &DirEntry, real: &Path) -> bool {
    entry.depth() > 0
        && entry.path_is_symlink()
        && entry.file_type().is_dir()
        && entry.path().canonicalize().is_ok_and(|target| real.starts_with(target))
}

fn below(home: &Path, path: &Path) -> String {
    path.strip_prefix(home).unwrap_or(path).display().to_string()
}
