//! Folders of JPEG and PNG files, CelebA's layout among them.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::celeba::{Layout, Lists};
use crate::classes::{self, Class};
use crate::findings::{Findings, SHOWN, some_of};
use crate::hash::Fingerprint;
use crate::listing::Listing;
use crate::pixels::Reader;
use crate::skip::Skips;
use crate::source::check_request;
use crate::{DataError, FolderLabels, ImageShape, OnCorrupt, Source, Split};

/// Linux's number of "too many levels of symbolic links", for which [`io::ErrorKind`] has no stable name.
const ELOOP: i32 = 40;

/// Images below a folder, sorted by path, decoded when read.
pub(crate) struct Folder {
    root: PathBuf,
    images: Vec<(PathBuf, Option<u32>)>,
    classes: Vec<Class>,
    /// The split that the images are of; `None` where nothing says so, and all images are used.
    split: Option<Split>,
    reader: Reader,
    skips: Option<Skips>,
    fingerprint: u64,
    findings: Findings,
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
            let others = match findings.passed_over.0.is_empty() {
                true => String::new(),
                false => format!(" (passed over: {})", findings.passed_over),
            };
            let reason = format!(
                "no .jpg, .jpeg or .png file lies below this folder{others}; point data.path at the folder that holds the images"
            );
            return Err(DataError::format(home, reason));
        }
        let mut images = lists.choose(files, on_corrupt, &mut findings)?;
        if images.is_empty() {
            return Err(DataError::format(
                home,
                format!("none of its images is in the {split} split; copy them here or ask for another split"),
            ));
        }
        findings.warnings.extend(lists.undivided(&layout, &partitions));
        findings.warnings.extend(splits_among(home, &folders));
        let classes = match labels {
            FolderLabels::None => Vec::new(),
            FolderLabels::Attribute(name) => table([-1, 1].map(|value| format!("{name} = {value}")), &images),
            FolderLabels::SubFolder => {
                label_by_sub_folder(home, &folders, &mut images)?;
                let classes = table(folders.iter().map(|name| name.to_string_lossy().into_owned()), &images);
                findings.warnings.extend(classes::warnings(home, &classes));
                classes
            }
        };
        Ok(Folder {
            root: root.to_path_buf(),
            classes,
            split: lists.divide().then_some(split),
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
        let file = File::open(path).map_err(|error| unopened(path, error))?;
        self.reader.read(path, file, out)?;
        Ok(*label)
    }

    fn describe(&self) -> String {
        let classes = self.classes().map_or("no labels".into(), |n| format!("{n} classes"));
        let split = self.split.map_or(String::new(), |split| format!(" of the {split} split"));
        let plural = if self.len() == 1 { "" } else { "s" };
        format!("{} image{plural}{split} below {}, {classes}", self.len(), self.root.display())
    }
}

/// Why a file cannot be opened. What is wrong with the file itself is a fault of this image, as damage is, and may be
/// skipped. Any other cause may be one machine's trouble only: skipping would let the images that a run sees depend on
/// which rank met it.
fn unopened(path: &Path, error: io::Error) -> DataError {
    let is_link = path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
    let reason = match error.kind() {
        io::ErrorKind::PermissionDenied => format!("this file cannot be opened ({error})"),
        io::ErrorKind::NotFound if is_link => format!("this link leads nowhere ({error})"),
        _ if is_link && error.raw_os_error() == Some(ELOOP) => format!("this link leads in circles ({error})"),
        io::ErrorKind::NotFound => return DataError::Gone { path: path.to_path_buf() },
        _ => return DataError::io(path)(error),
    };
    DataError::Image { path: path.to_path_buf(), reason }
}

/// The names of the folders that would be classes below `root`, in the order of their numbers.
///
/// # Errors
/// [`DataError::Io`] where `root` cannot be read.
pub fn class_folders(root: &Path) -> Result<Vec<String>, DataError> {
    Ok(Listing::of(root)?.folders.iter().map(|name| name.to_string_lossy().into_owned()).collect())
}

/// Labels each image by its first folder below `home`. Every folder has its number, whether there are images in it or
/// not: one that is emptied, or whose images are not read, does not change the classes after it.
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
    let mut loose = images.iter().filter(|(_, label)| label.is_none());
    let Some((first, _)) = loose.next() else { return Ok(()) };
    let others = match loose.count() {
        0 => String::new(),
        more => format!(" (as do {more} more)"),
    };
    let reason = format!(
        "classes are to come from sub-folders, but this image lies in none{others}; move it into one or set other data.labels"
    );
    Err(DataError::format(first, reason))
}

fn table(names: impl IntoIterator<Item = String>, images: &[(PathBuf, Option<u32>)]) -> Vec<Class> {
    classes::count(names, images.iter().filter_map(|(_, label)| *label))
}

/// The warning that training and test images are used alike, where folders are named so.
fn splits_among(home: &Path, folders: &[OsString]) -> Option<String> {
    let named = |name: &&OsString| {
        matches!(
            name.to_ascii_lowercase().to_str(),
            Some("train" | "training" | "val" | "valid" | "validation" | "test")
        )
    };
    let splits: Vec<_> = folders.iter().filter(named).map(|name| name.to_string_lossy().into_owned()).collect();
    (splits.len() > 1).then(|| {
        let (home, splits) = (home.display(), some_of(splits, SHOWN));
        format!("{home}: the images in {splits} are all used. Point data.path at one of these folders to use it alone.")
    })
}

/// Of the images' names below `home`, without their endings, and their labels.
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
