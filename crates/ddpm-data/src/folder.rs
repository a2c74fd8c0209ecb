//! Folders of image files and arrays, including CelebA.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::celeba::{Layout, Lists};
use crate::classes::{self, Class};
use crate::findings::{Findings, MAX_LISTED, some_of};
use crate::hash::Fingerprint;
use crate::listing::{Listing, images_below};
use crate::pixels::{self, Reader};
use crate::skip::Skips;
use crate::source::{Encoded, check_request};
use crate::{DataError, Depth, FolderLabels, ImageShape, OnCorrupt, Source, Split};

/// Linux's error number for "too many levels of symbolic links", for which [`io::ErrorKind`] has no stable variant.
const ELOOP: i32 = 40;

/// Images below a folder, sorted by path, decoded when read.
pub(crate) struct Folder {
    root: PathBuf,
    images: Vec<(PathBuf, Option<u32>)>,
    classes: Vec<Class>,
    /// The split of the images; `None` if there is no list of splits, so that all images are used.
    split: Option<Split>,
    reader: Reader,
    skips: Option<Skips>,
    fingerprint: u64,
    findings: Findings,
}

/// The shape of the first image below a folder, as it is in its file.
///
/// # Errors
/// There is no image, or the first one is not usable or has more than `max_pixels`.
pub fn first_shape(folder: &Path, max_pixels: u64) -> Result<ImageShape, DataError> {
    match images_below(folder)?.first() {
        Some(path) => pixels::shape(path, max_pixels),
        None => Err(DataError::format(folder, format!("there are no {} below this folder", pixels::READ))),
    }
}

impl Folder {
    pub(crate) fn open(
        root: &Path,
        split: Split,
        labels: &FolderLabels,
        reader: Reader,
        on_corrupt: OnCorrupt,
    ) -> Result<Self, DataError> {
        let attribute = match labels {
            FolderLabels::Attribute(name) => Some(name.as_str()),
            _ => None,
        };
        let layout = Layout::of(root);
        let lists = Lists::load(root, &layout, split, attribute)?;
        let home = &layout.images;
        let Listing { images: files, folders, partitions, mut findings } = Listing::of(home)?;
        if files.is_empty() {
            let others = match findings.ignored.0.is_empty() {
                true => String::new(),
                false => format!(" (ignored: {})", findings.ignored),
            };
            let reason = format!(
                "there is no image, such as a .jpg or .png file, below this folder{others}; point data.path at the folder that \
                 contains the images"
            );
            return Err(DataError::format(home, reason));
        }
        let mut images = lists.choose(files, on_corrupt, &mut findings)?;
        if images.is_empty() {
            return Err(DataError::format(
                home,
                format!("none of its images is in the {split} split; copy them here or request another split"),
            ));
        }
        findings.warnings.extend(lists.all_splits_warning(&layout, &partitions));
        findings.warnings.extend(split_folder_warning(home, &folders));
        let classes = match labels {
            FolderLabels::None => Vec::new(),
            FolderLabels::Attribute(name) => count_classes([-1, 1].map(|value| format!("{name} = {value}")), &images),
            FolderLabels::SubFolder => {
                label_by_sub_folder(home, &folders, &mut images)?;
                let classes = count_classes(folders.iter().map(|name| name.to_string_lossy().into_owned()), &images);
                findings.warnings.extend(classes::warnings(home, &classes));
                classes
            }
        };
        Ok(Folder {
            root: root.to_path_buf(),
            classes,
            split: lists.has_splits().then_some(split),
            reader,
            skips: (on_corrupt == OnCorrupt::Skip).then(Skips::default),
            fingerprint: fingerprint(home, &images),
            findings,
            images,
        })
    }
}

impl Source for Folder {
    fn len(&self) -> u64 {
        self.images.len() as u64
    }

    fn image(&self) -> ImageShape {
        self.reader.image
    }

    fn depth(&self) -> Depth {
        self.reader.depth()
    }

    fn classes(&self) -> Option<usize> {
        (!self.classes.is_empty()).then_some(self.classes.len())
    }

    fn class_table(&self) -> Vec<Class> {
        self.classes.clone()
    }

    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    fn findings(&self) -> Findings {
        self.findings.clone()
    }

    fn skips(&self) -> Option<&Skips> {
        self.skips.as_ref()
    }

    fn read(&self, id: u64, out: &mut [u8]) -> Result<Option<u32>, DataError> {
        check_request(self, id, out)?;
        let (path, label) = &self.images[id as usize];
        let file = File::open(path).map_err(|error| open_error(path, error))?;
        self.reader.read(path, file, out)?;
        Ok(*label)
    }

    fn encoded(&self, id: u64) -> Result<Option<Encoded>, DataError> {
        let (path, class) = &self.images[id as usize];
        let bytes = fs::read(path).map_err(|error| open_error(path, error))?;
        let name = path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().into_owned();
        Ok(Some(Encoded { bytes, name, class: *class }))
    }

    fn describe(&self) -> String {
        let classes = self.classes().map_or("no labels".into(), |n| format!("{n} classes"));
        let split = self.split.map_or(String::new(), |split| format!(" of the {split} split"));
        let plural = if self.len() == 1 { "" } else { "s" };
        format!("{} image{plural}{split} below {}, {classes}", self.len(), self.root.display())
    }
}

/// Classifies the error of opening a file. A problem with the file itself is a fault of this image, like damage, and
/// may be skipped. Any other cause may be specific to one machine: with skipping, the images that a run sees would
/// depend on which rank had the problem.
fn open_error(path: &Path, error: io::Error) -> DataError {
    let is_link = path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
    let reason = match error.kind() {
        io::ErrorKind::PermissionDenied => format!("this file cannot be opened ({error})"),
        io::ErrorKind::NotFound if is_link => format!("this link is broken ({error})"),
        _ if is_link && error.raw_os_error() == Some(ELOOP) => format!("this link is circular ({error})"),
        io::ErrorKind::NotFound => return DataError::Vanished { path: path.to_path_buf() },
        _ => return DataError::io(path)(error),
    };
    DataError::Image { path: path.to_path_buf(), reason }
}

/// The names of the folders below `root` that would be classes, in the order of their numbers.
///
/// # Errors
/// [`DataError::Io`] if `root` cannot be read.
pub fn class_folders(root: &Path) -> Result<Vec<String>, DataError> {
    Ok(Listing::of(root)?.folders.iter().map(|name| name.to_string_lossy().into_owned()).collect())
}

/// Labels each image by its first folder below `home`. Every folder is numbered, with or without images, so that a
/// folder that is emptied, or whose images are not read, does not change the classes after it.
fn label_by_sub_folder(
    home: &Path,
    folders: &[OsString],
    images: &mut [(PathBuf, Option<u32>)],
) -> Result<(), DataError> {
    for (file, label) in images.iter_mut() {
        let first = file.strip_prefix(home).ok().and_then(|below| below.iter().next());
        *label = first
            .and_then(|first| folders.binary_search_by(|folder| folder.as_os_str().cmp(first)).ok())
            .map(|i| i as u32);
    }
    let mut unlabelled = images.iter().filter(|(_, label)| label.is_none());
    let Some((first, _)) = unlabelled.next() else { return Ok(()) };
    let others = match unlabelled.count() {
        0 => String::new(),
        more => format!(" (nor are {more} more)"),
    };
    let reason = format!(
        "classes come from sub-folders, but this image is not in one{others}; move it into a sub-folder or change data.labels"
    );
    Err(DataError::format(first, reason))
}

fn count_classes(names: impl IntoIterator<Item = String>, images: &[(PathBuf, Option<u32>)]) -> Vec<Class> {
    classes::count(names, images.iter().filter_map(|(_, label)| *label))
}

/// The warning that both training and test images are used, if folders have such names.
fn split_folder_warning(home: &Path, folders: &[OsString]) -> Option<String> {
    let named = |name: &&OsString| {
        matches!(
            name.to_ascii_lowercase().to_str(),
            Some("train" | "training" | "val" | "valid" | "validation" | "test")
        )
    };
    let splits: Vec<_> = folders.iter().filter(named).map(|name| name.to_string_lossy().into_owned()).collect();
    (splits.len() > 1).then(|| {
        let (home, splits) = (home.display(), some_of(splits, MAX_LISTED));
        format!("{home}: the images in {splits} are all used. Point data.path at one of these folders to use it alone.")
    })
}

/// Covers the names of the images below `home`, without extensions, and their labels.
fn fingerprint(home: &Path, images: &[(PathBuf, Option<u32>)]) -> u64 {
    let mut fingerprint = Fingerprint::default();
    for (file, label) in images {
        let below = file.strip_prefix(home).unwrap_or(file);
        fingerprint.add(below.parent().unwrap_or(below).as_os_str().as_encoded_bytes());
        fingerprint.add(below.file_stem().unwrap_or_default().as_encoded_bytes());
        fingerprint.add(&label.unwrap_or(u32::MAX).to_le_bytes());
    }
    fingerprint.value()
}
