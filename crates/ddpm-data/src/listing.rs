//! What lies below a folder: its images, its sub-folders, and what is passed over.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use crate::findings::{Findings, SHOWN, some_of};
use crate::{DataError, celeba};

/// Extensions of the files that are read, in lower case.
const IMAGES: [&str; 5] = ["jfif", "jpe", "jpeg", "jpg", "png"];
/// Folders that operating systems keep on any disk or in any archive for themselves. Like hidden ones, and `._name.jpg`,
/// which macOS leaves beside each image, they are not looked at.
const SYSTEM: [&str; 5] = ["$RECYCLE.BIN", "@eaDir", "System Volume Information", "__MACOSX", "lost+found"];

/// What a folder holds at any depth. Links are followed.
#[derive(Default)]
pub(crate) struct Listing {
    /// What is named like an image, sorted by path: files, and links that lead nowhere.
    pub images: Vec<PathBuf>,
    /// The names of the folders directly below, sorted, with images or without.
    pub folders: Vec<OsString>,
    /// Lists that are named like CelebA's partition.
    pub partitions: Vec<PathBuf>,
    /// What else was met.
    pub findings: Findings,
}

/// What cannot be looked at, by paths below the folder.
#[derive(Default)]
struct Obstacles {
    dangling: Vec<String>,
    loops: Vec<String>,
    unreadable: Vec<String>,
    not_files: Vec<String>,
}

impl Listing {
    /// Lists `home`.
    ///
    /// # Errors
    /// [`DataError::Io`] where `home` itself cannot be read. What cannot be read below it is passed over with a warning;
    /// an image that cannot is found out when it is read.
    pub(crate) fn of(home: &Path) -> Result<Self, DataError> {
        let real = home.canonicalize().map_err(DataError::io(home))?;
        let (mut listing, mut obstacles) = (Listing::default(), Obstacles::default());
        let walk = WalkDir::new(home).follow_links(true).into_iter();
        let mut walk = walk.filter_entry(|entry| entry.depth() == 0 || visible(entry.file_name()));
        while let Some(entry) = walk.next() {
            match entry {
                // A link out of the folder to one that holds it would lead to every image twice.
                Ok(entry) if links_above(&entry, &real) => {
                    obstacles.loops.push(below(home, entry.path()));
                    walk.skip_current_dir();
                }
                Ok(entry) => listing.add(home, &entry, &mut obstacles),
                Err(error) => listing.add_unread(home, error, &mut obstacles)?,
            }
        }
        listing.images.sort();
        listing.folders.sort();
        listing.partitions.sort();
        listing.findings.warnings = obstacles.sentences(home);
        Ok(listing)
    }

    fn add(&mut self, home: &Path, entry: &DirEntry, obstacles: &mut Obstacles) {
        let (kind, path) = (entry.file_type(), entry.path());
        if kind.is_dir() {
            if entry.depth() == 1 {
                self.folders.push(entry.file_name().to_owned());
            }
        } else if is_image(path) {
            if kind.is_file() {
                self.images.push(path.to_path_buf());
            } else {
                obstacles.not_files.push(below(home, path));
            }
        } else {
            self.pass_over(path);
            if celeba::is_partition(path) {
                self.partitions.push(path.to_path_buf());
            }
        }
    }

    /// Sorts in what could not be looked at: a link that leads nowhere or in circles, a folder without permission.
    fn add_unread(&mut self, home: &Path, error: walkdir::Error, obstacles: &mut Obstacles) -> Result<(), DataError> {
        let path = error.path().unwrap_or(home).to_path_buf();
        if path == home {
            let source = error.into_io_error().unwrap_or_else(|| std::io::Error::other("it is a link to itself"));
            return Err(DataError::Io { path, source });
        }
        if !visible(path.file_name().unwrap_or_default()) {
            return Ok(());
        }
        if error.loop_ancestor().is_some() {
            obstacles.loops.push(below(home, &path));
            return Ok(());
        }
        let is_link = path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
        if is_link {
            obstacles.dangling.push(below(home, &path));
        }
        if is_image(&path) {
            self.images.push(path);
        } else if !is_link {
            let cause = error.io_error().map(|cause| format!(" ({cause})")).unwrap_or_default();
            obstacles.unreadable.push(format!("{}{cause}", below(home, &path)));
        } else if path.extension().is_some() {
            self.pass_over(&path);
        } else if error.depth() == 1 {
            // Likely a folder on a disk that is not mounted: as a class it keeps its number.
            self.folders.extend(path.file_name().map(OsStr::to_owned));
        }
        Ok(())
    }

    fn pass_over(&mut self, path: &Path) {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        *self.findings.passed_over.0.entry(extension).or_default() += 1;
    }
}

impl Obstacles {
    fn sentences(self, home: &Path) -> Vec<String> {
        let kinds = [
            (self.dangling, "links that lead nowhere", "Restore what they point to, or remove them."),
            (self.loops, "links back to a folder that holds them, not followed", "Remove them."),
            (self.unreadable, "folders that cannot be read, so none of their images is used", "Allow reading them."),
            (self.not_files, "named like images but neither files nor folders, passed over", "Rename or remove them."),
        ];
        let met = kinds.into_iter().filter(|(paths, ..)| !paths.is_empty());
        met.map(|(mut paths, what, fix)| {
            paths.sort();
            format!("{}: {what}: {}. {fix}", home.display(), some_of(paths, SHOWN))
        })
        .collect()
    }
}

/// Whether files of this name are read.
fn is_image(path: &Path) -> bool {
    let extension = path.extension().map(OsStr::to_ascii_lowercase);
    extension.is_some_and(|extension| IMAGES.iter().any(|image| extension == *image))
}

fn visible(name: &OsStr) -> bool {
    !name.as_encoded_bytes().starts_with(b".") && !SYSTEM.iter().any(|system| name == *system)
}

/// Whether this is a link to a folder that holds `real`, the folder being listed, or is it.
fn links_above(entry: &DirEntry, real: &Path) -> bool {
    entry.depth() > 0
        && entry.path_is_symlink()
        && entry.file_type().is_dir()
        && entry.path().canonicalize().is_ok_and(|target| real.starts_with(target))
}

fn below(home: &Path, path: &Path) -> String {
    path.strip_prefix(home).unwrap_or(path).display().to_string()
}
