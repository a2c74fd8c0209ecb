//! CelebA as people have it: where its images and lists are, which split an image is in, and which class.

mod list;

use std::path::{Path, PathBuf};

use crate::findings::Findings;
use crate::{DataError, OnCorrupt, Split};
use list::List;

/// Folders of aligned images, in the order of preference.
const IMAGES: [&str; 2] = ["img_align_celeba", "img_align_celeba_png"];
/// Folders beside the lists that hold these, as the authors publish them.
const IMAGES_IN: [&str; 2] = ["", "Img"];
/// Folders that hold lists, likewise.
const LISTS_IN: [&str; 3] = ["", "Eval", "Anno"];
const ENDINGS: [&str; 2] = ["txt", "csv"];
const PARTITION: &str = "list_eval_partition";
const ATTRIBUTES: &str = "list_attr_celeba";

/// Where a folder keeps images and lists; for one that is not CelebA's, the images are in the folder itself.
pub(crate) struct Layout {
    /// The folder below which to look for images.
    pub images: PathBuf,
    /// The folder itself and, if it is one of CelebA's folders of images, those above it.
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

    /// Whether anything here has a name of CelebA's.
    fn is_celeba(&self) -> bool {
        self.homes.len() > 1 || self.images != self.homes[0] || self.list(ATTRIBUTES).is_some()
    }

    fn list(&self, name: &str) -> Option<PathBuf> {
        let folders = self.homes.iter().flat_map(|home| LISTS_IN.map(|within| home.join(within)));
        let mut files = folders.flat_map(|folder| ENDINGS.map(|ending| folder.join(format!("{name}.{ending}"))));
        files.find(|file| file.is_file())
    }
}

/// Whether a file is named like the list of the splits.
pub(crate) fn is_partition(file: &Path) -> bool {
    file.file_stem().is_some_and(|stem| stem == PARTITION)
        && file.extension().is_some_and(|extension| ENDINGS.iter().any(|ending| extension == *ending))
}

/// The lists of a folder, as far as they are needed. Without lists every image is in, without a label.
pub(crate) struct Lists {
    partition: Option<List<Split>>,
    attribute: Option<List<u32>>,
    split: Split,
}

impl Lists {
    /// Reads the lists that `split` and `attribute` call for.
    pub(crate) fn load(root: &Path, layout: &Layout, split: Split, attribute: Option<&str>) -> Result<Self, DataError> {
        let partition = layout.list(PARTITION).map(|path| list::partition(&path)).transpose()?;
        if partition.is_none() && split != Split::Train {
            let reason = format!(
                "the {split} split is asked for, but there is no {PARTITION}.txt or .csv here that says which images are in \
                 it; point data.path at a folder of {split} images and ask for the train split"
            );
            return Err(DataError::format(root, reason));
        }
        let attribute = attribute
            .map(|name| {
                let path = layout.list(ATTRIBUTES).ok_or_else(|| {
                    let reason = format!(
                        "there is no {ATTRIBUTES}.txt or .csv here, from which data.labels takes the attribute {name}; copy \
                         it here, or set other data.labels"
                    );
                    DataError::format(root, reason)
                })?;
                list::attribute(&path, name)
            })
            .transpose()?;
        Ok(Lists { partition, attribute, split })
    }

    /// Whether the images are those of one split, and not all.
    pub(crate) fn divide(&self) -> bool {
        self.partition.is_some()
    }

    /// The images of the split with their labels. An image without a row is refused, or left out with a warning; a row
    /// without an image is no more than a warning.
    pub(crate) fn choose(
        &self,
        files: Vec<PathBuf>,
        on_corrupt: OnCorrupt,
        findings: &mut Findings,
    ) -> Result<Vec<(PathBuf, Option<u32>)>, DataError> {
        let absent = [
            self.partition.as_ref().and_then(|list| list.absent(&files)),
            self.attribute.as_ref().and_then(|list| list.absent(&files)),
        ];
        findings.warnings.extend(absent.into_iter().flatten());
        let images: Vec<PathBuf> = match &self.partition {
            Some(list) => {
                let rows = list.rows_of(files, on_corrupt, findings)?.into_iter();
                rows.filter(|(_, split)| *split == self.split).map(|(file, _)| file).collect()
            }
            None => files,
        };
        Ok(match &self.attribute {
            Some(list) => {
                let rows = list.rows_of(images, on_corrupt, findings)?.into_iter();
                rows.map(|(file, label)| (file, Some(label))).collect()
            }
            None => images.into_iter().map(|file| (file, None)).collect(),
        })
    }

    /// The warning that images of all splits are used, where some may have been meant for tests: this looks like CelebA,
    /// or `partitions` are lists below the images that are none of this layout's.
    pub(crate) fn undivided(&self, layout: &Layout, partitions: &[PathBuf]) -> Option<String> {
        if self.divide() {
            return None;
        }
        if let Some(list) = partitions.first() {
            return Some(format!(
                "{}: this list is not used, so the images of all splits are. Point data.path at the folder that holds it and \
                 the images.",
                list.display()
            ));
        }
        layout.is_celeba().then(|| {
            format!(
                "{}: there is no {PARTITION}.txt or .csv here, so the images of all splits are used. Copy it here to train on \
                 those of the train split only.",
                layout.homes[0].display()
            )
        })
    }
}
