//! Data sets: where images and classes come from, and the shape that images are brought to.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::check::{in_range, positive};
use crate::error::{Naming, SpecError};
use crate::image::ImageShape;

/// The name of a [`SourceKind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataKind {
    /// [`SourceKind::Idx`].
    Idx,
    /// [`SourceKind::Folder`].
    Folder,
    /// A packed data set; reserved, not available in this version.
    Packed,
    /// [`SourceKind::Synthetic`].
    Synthetic,
    /// None: an imported model does not say what it was trained on.
    Unknown,
}

/// What happens at an image that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnCorrupt {
    /// The run ends with an error that names the file.
    Error,
    /// The next one that can be used takes its place, with a warning; it is counted.
    Skip,
}

/// Which part of a data set to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// What models are trained on.
    Train,
    /// CelebA's validation images; IDX sets have none.
    Valid,
    /// What was held out.
    Test,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Split::Train => "train",
            Split::Valid => "valid",
            Split::Test => "test",
        })
    }
}

/// Where the classes of a folder of images come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FolderLabels {
    /// No classes.
    None,
    /// The first folder below the root: all folders there, with images or without, numbered in sorted order.
    SubFolder,
    /// A column of CelebA's `list_attr_celeba`: class 0 for -1, class 1 for 1.
    Attribute(String),
}

/// Where the classes of an IDX file come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdxLabels {
    /// No classes; label files are not read.
    None,
    /// The standard label file of the folder that holds the images, if it is there; none where the images are a file.
    Beside,
    /// This label file, or the standard one in this folder.
    At(PathBuf),
}

/// Where the images are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// MNIST's format, plain or gzip.
    Idx {
        /// The image file, or a folder that holds the standard files of MNIST or Fashion-MNIST.
        images: PathBuf,
        /// Where classes come from.
        labels: IdxLabels,
        /// Which of a folder's files to use; of no effect where `images` names a file.
        split: Split,
    },
    /// JPEG and PNG files below a folder, CelebA's layout included.
    Folder {
        /// The folder, searched with all its sub-folders.
        root: PathBuf,
        /// The part to use. Where CelebA's `list_eval_partition` is missing, `Train` is all images, and others are refused.
        split: Split,
        /// Where classes come from.
        labels: FolderLabels,
    },
    /// The built-in drawn digits.
    Synthetic {
        /// How many digits there are in an epoch.
        count: u64,
        /// Seed of their shapes; another seed gives other digits.
        seed: u64,
    },
}

/// A data set and the shape its images are brought to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataSpec {
    /// Where the images are.
    pub kind: SourceKind,
    /// The shape of the result: square, with 1 channel (grey) or 3 (RGB).
    pub image: ImageShape,
    /// Side of the centred square that is cut out before scaling; `None` takes the largest one.
    pub crop: Option<u32>,
    /// Most pixels (width times height) of an image file; a larger one is not decoded, since it might not fit into
    /// memory.
    pub max_pixels: u64,
    /// What happens at an image that cannot be used: it does not decode, cannot be opened, or is not in CelebA's lists.
    pub on_corrupt: OnCorrupt,
}

impl DataSpec {
    /// Checks the numbers; whether the files are there shows when the data set is opened.
    ///
    /// # Errors
    /// [`SpecError`] in the field `count`, `crop`, or one of `image`.
    pub fn validate(&self, naming: Naming) -> Result<(), SpecError> {
        if let SourceKind::Synthetic { count, .. } = self.kind {
            positive(&naming.path("count"), count)?;
        }
        self.image.validate(naming)?;
        self.image.validate_colours(naming)?;
        in_range(&naming.path("crop"), 0, self.crop != Some(0), "at least 1, or not set")
    }
}
