//! CelebA in its common layouts: where its images and lists are, and the split and class of each image.

mod list;

use std::path::{Path, PathBuf};

use crate::findings::Findings;
use crate::{DataError, OnCorrupt, Split};
use list::List;

/// Folders of aligned images, in order of preference.
const IMAGES: [&str; 2] = ["img_align_celeba", "img_align_celeba_png"];
/// Folders next to the lists that contain these, as published by the authors.
const IMAGES_IN: [&str; 2] = ["", "Img"];
/// Folders that contain lists, likewise.
const LISTS_IN: [&str; 3] = ["", "Eval", "Anno"];
const ENDINGS: [&str; 2] = ["txt", "csv"];
const PARTITION: &str = "list_eval_partition";
const ATTRIBUTES: &str = "list_attr_celeba";

/// Where a folder has its images and lists; if it is not CelebA, the images are in the folder itself.
pub(crate) struct Layout {
    /// The folder to search for images.
    pub images: PathBuf,
    /// The folder itself and, if it is one of CelebA's image folders, its parents.
    homes: Vec<PathBuf>,
}

impl Layout {
    pub(crate) fn of(root: &Path) -> Self {
        let mut homes = vec![root.to_path_buf()];
        let mut home = std::path::absolute(root).unwrap_or_else(|_| root.to_path_buf());
        while home.file_name().is_some_and(|name| IMAGES.iter().chain(&IMAGES_IN[1..]).any(|known| name == *known))
            && home.pop()
        {
            homes.push(home.clone());
        }
        let folders = IMAGES.iter().flat_map(|images| IMAGES_IN.map(|within| root.join(within).join(images)));
        let images = folders.into_iter().find(|folder| folder.is_dir()).unwrap_or_else(|| root.to_path_buf());
        Layout { images, homes }
    }

    /// Whether anything here is named as in CelebA.
    fn is_celeba(&self) -> bool {
        self.homes.len() > 1 || self.images != self.homes[0] || self.list(ATTRIBUTES).is_some()
    }

    fn list(&self, name: &str) -> Option<PathBuf> {
        let folders = self.homes.iter().flat_map(|home| LISTS_IN.map(|within| home.join(within)));
        let mut files = folders.flat_map(|folder| ENDINGS.map(|ending| folder.join(format!("{name}.{ending}"))));
        files.find(|file| file.is_file())
    }
}

/// Whether a file is named like the list of splits.
pub(crate) fn is_partition(file: &Path) -> bool {
    file.file_stem().is_some_and(|stem| stem == PARTITION)
        && file.extension().is_some_and(|extension| ENDINGS.iter().any(|ending| extension == *ending))
}

/// The lists of a folder, as far as they are needed. Without lists, every image is used, without a label.
pub(crate) struct Lists {
    partition: Option<List<Split>>,
    attribute: Option<List<u32>>,
    split: Split,
}

impl Lists {
    /// Reads the lists that `split` and `attribute` require.
    pub(crate) fn load(root: &Path, layout: &Layout, split: Split, attribute: Option<&str>) -> Result<Self, DataError> {
        let partition = layout.list(PARTITION).map(|path| list::partition(&path)).transpose()?;
        if partition.is_none() && split != Split::Train {
            let reason = format!(
                "the {split} split is requested, but there is no {PARTITION}.txt or .csv here that says which images are in \
                 it; point data.path at a folder of {split} images and request the train split"
            );
            return Err(DataError::format(root, reason));
        }
        let attribute = attribute
            .map(|name| {
                let path = layout.list(ATTRIBUTES).ok_or_else(|| {
                    let reason = format!(
                        "there is no {ATTRIBUTES}.txt or .csv here, which data.labels needs for the attribute {name}; copy it \
                         here, or change data.labels"
                    );
                    DataError::format(root, reason)
                })?;
                list::attribute(&path, name)
            })
            .transpose()?;
        Ok(Lists { partition, attribute, split })
    }

    /// Whether only the images of one split are used, rather than all.
    pub(crate) fn has_splits(&self) -> bool {
        self.partition.is_some()
    }

    /// The images of the split with their labels. An image without a row is an error, or is left out with a warning; a
    /// row without an image is only a warning.
    pub(crate) fn choose(
        &self,
        files: Vec<PathBuf>,
        on_corrupt: OnCorrupt,
        findings: &mut Findings,
    ) -> Result<Vec<(PathBuf, Option<u32>)>, DataError> {
        let missing = [
            self.partition.as_ref().and_then(|list| list.missing_images_warning(&files)),
            self.attribute.as_ref().and_then(|list| list.missing_images_warning(&files)),
        ];
        findings.warnings.extend(missing.into_iter().flatten());
        let images: Vec<PathBuf> = match &self.partition {
            Some(list) => {
                let rows = list.match_rows(files, on_corrupt, findings)?.into_iter();
                rows.filter(|(_, split)| *split == self.split).map(|(file, _)| file).collect()
            }
            None => files,
        };
        Ok(match &self.attribute {
            Some(list) => {
                let rows = list.match_rows(images, on_corrupt, findings)?.into_iter();
                rows.map(|(file, label)| (file, Some(label))).collect()
            }
            None => images.into_iter().map(|file| (file, None)).collect(),
        })
    }

    /// The warning that the images of all splits are used although some may be meant for testing: this looks like
    /// CelebA, or there are `partitions`, lists below the images that are not part of this layout.
    pub(crate) fn all_splits_warning(&self, layout: &Layout, partitions: &[PathBuf]) -> Option<String> {
        if self.has_splits() {
            return None;
        }
        if let Some(list) = partitions.first() {
            return Some(format!(
                "{}: this list is not used, so the images of all splits are used. Point data.path at the folder that contains \
                 it and the images.",
                list.display()
            ));
        }
        layout.is_celeba().then(|| {
            format!(
                "{}: there is no {PARTITION}.txt or .csv here, so the images of all splits are used. Copy it here to train only \
                 on those of the train split.",
                layout.homes[0].display()
            )
        })
    }
}
