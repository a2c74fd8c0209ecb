//! Folders of JPEG and PNG files, CelebA's layout among them.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::celeba::{self, Lists};
use crate::pixels::Reader;
use crate::{DataError, FolderLabels, ImageSpec, OnCorrupt, Source, Split, check_request};

/// Images below a folder, sorted by path, decoded when read.
pub(crate) struct Folder {
    root: PathBuf,
    images: Vec<(PathBuf, Option<u32>)>,
    classes: Option<usize>,
    split: Split,
    reader: Reader,
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
        let lists = Lists::load(root, split, attribute)?;
        let home = Some(root.join(celeba::IMAGES)).filter(|home| home.is_dir()).unwrap_or_else(|| root.to_path_buf());
        let files = list(&home)?;
        if files.is_empty() {
            return Err(DataError::format(
                &home,
                "no .jpg, .jpeg or .png file lies below this folder; point data.path at the folder that holds the images",
            ));
        }
        let mut images = Vec::with_capacity(files.len());
        for file in files {
            match lists.look_up(&file) {
                Ok(Some(label)) => images.push((file, label)),
                Ok(None) => {}
                Err(error) if on_corrupt == OnCorrupt::Skip => tracing::warn!("left out: {error}"),
                Err(error) => return Err(error),
            }
        }
        if images.is_empty() {
            return Err(DataError::format(
                &home,
                format!("none of its images is in the {split} split; copy them here or ask for another split"),
            ));
        }
        let classes = match labels {
            FolderLabels::None => None,
            FolderLabels::Attribute(_) => Some(2),
            FolderLabels::SubFolder => Some(label_by_sub_folder(&home, &mut images)?),
        };
        Ok(Folder { root: root.to_path_buf(), images, classes, split, reader })
    }
}

impl Source for Folder {
    fn len(&self) -> u64 {
        self.images.len() as u64
    }

    fn spec(&self) -> ImageSpec {
        self.reader.spec
    }

    fn classes(&self) -> Option<usize> {
        self.classes
    }

    fn read(&self, id: u64, out: &mut [u8]) -> Result<Option<u32>, DataError> {
        check_request(self, id, out)?;
        let (path, label) = &self.images[id as usize];
        self.reader.read(path, out)?;
        Ok(*label)
    }

    fn describe(&self) -> String {
        let classes = self.classes.map_or("no labels".into(), |n| format!("{n} classes"));
        format!("{} images of the {} split below {}, {classes}", self.len(), self.split, self.root.display())
    }
}

/// Every image file below `home`, sorted; hidden files (macOS leaves `._name.jpg` beside each image) are passed over.
fn list(home: &Path) -> Result<Vec<PathBuf>, DataError> {
    let visible = |name: &std::ffi::OsStr| !name.as_encoded_bytes().starts_with(b".");
    let mut files = Vec::new();
    let walk = WalkDir::new(home).follow_links(true).into_iter();
    for entry in walk.filter_entry(|entry| entry.depth() == 0 || visible(entry.file_name())) {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(home).to_path_buf();
            let source =
                error.into_io_error().unwrap_or_else(|| io::Error::other("a link leads back to its own folder"));
            DataError::Io { path, source }
        })?;
        let extension = entry.path().extension().map(|end| end.to_ascii_lowercase());
        let image = extension.is_some_and(|end| end == "jpg" || end == "jpeg" || end == "png");
        if image && entry.file_type().is_file() {
            files.push(entry.into_path());
        }
    }
    files.sort();
    Ok(files)
}

/// Numbers the first folders below `home` in sorted order, labels each image by its own, returns how many there are.
fn label_by_sub_folder(home: &Path, images: &mut [(PathBuf, Option<u32>)]) -> Result<usize, DataError> {
    let folder_of = |file: &Path| {
        let mut parts = file.strip_prefix(home).ok()?.components();
        let first = parts.next()?.as_os_str().to_owned();
        parts.next().map(|_| first)
    };
    let mut folders = BTreeSet::new();
    for (file, _) in images.iter() {
        folders.insert(folder_of(file).ok_or_else(|| {
            DataError::format(file, "classes are to come from sub-folders, but this image lies in none; move it into one or set other data.labels")
        })?);
    }
    for (file, label) in images {
        *label = folder_of(file).and_then(|own| folders.iter().position(|folder| *folder == own)).map(|i| i as u32);
    }
    Ok(folders.len())
}
