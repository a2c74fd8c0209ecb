//! Data sets: where images and classes come from, and the shape that images are brought to.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::check::{in_range, positive, require};
use crate::error::{Naming, SpecError};
use crate::fitting::{Alpha, Fit};
use crate::image::ImageShape;

/// The name of a [`SourceKind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataKind {
    /// [`SourceKind::Idx`].
    Idx,
    /// [`SourceKind::Folder`].
    Folder,
    /// [`SourceKind::Shards`] in [`ShardFormat::Parquet`].
    Parquet,
    /// [`SourceKind::Shards`] in [`ShardFormat::Webdataset`].
    Webdataset,
    /// [`SourceKind::Shards`] in [`ShardFormat::Zip`].
    Zip,
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

/// The format of files that hold many images each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShardFormat {
    /// Parquet as Hugging Face writes it: a column of images (a struct of `bytes` and `path`, or plain binary).
    Parquet,
    /// WebDataset: tar files, plain, `.gz` or `.zst`, whose members with equal base names are one sample.
    Webdataset,
    /// ZIP archives of images, with or without the `dataset.json` of StyleGAN and EDM.
    Zip,
}

/// The order of the images in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shuffle {
    /// Any image may follow any other.
    Global,
    /// Files in random order, and images in random order within a window of a few files: for [`SourceKind::Shards`].
    Shards,
}

/// Where the classes of a sharded data set come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardLabels {
    /// No classes.
    None,
    /// The usual place of the format, if there is something: the column `label` or the first `ClassLabel`; `.cls`, or
    /// `label` in `.json`; `dataset.json`.
    Auto,
    /// The first folder of each image's name inside a tar or ZIP file.
    Folder,
    /// This column of a Parquet file; the members of a tar file with this extension, or this key in `.json`.
    Field(String),
}

/// Files that hold many images each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardSpec {
    /// Their format.
    pub format: ShardFormat,
    /// One file, a folder that is searched with its sub-folders, or a pattern (`*`, `?`, `[]`, `**`, `{000..127}`);
    /// or an address of an object store, `s3://bucket/key`, with the same forms.
    pub path: PathBuf,
    /// The part to use, by the names of files and folders, as Hugging Face does.
    pub split: Split,
    /// Where classes come from.
    pub labels: ShardLabels,
    /// The folder of indexes and decompressed files; `None` is `ddpm-dist/data` in the user's cache.
    pub cache: Option<PathBuf>,
    /// Most bytes that are kept there of files in an object store, so that they are not fetched again.
    pub cache_bytes: u64,
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
    /// Image files and NumPy arrays below a folder, CelebA's layout included.
    Folder {
        /// The folder, searched with all its sub-folders.
        root: PathBuf,
        /// The part to use. Where CelebA's `list_eval_partition` is missing, `Train` is all images, and others are refused.
        split: Split,
        /// Where classes come from.
        labels: FolderLabels,
    },
    /// Files that hold many images each.
    Shards(ShardSpec),
    /// The built-in drawn digits.
    Synthetic {
        /// How many digits there are in an epoch.
        count: u64,
        /// Seed of their shapes; another seed gives other digits.
        seed: u64,
    },
}

/// How a value of an image is stored between the data set and the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// A byte: one of 256 levels, from 0, which becomes -1, to 255, which becomes 1.
    Byte,
    /// An f32 in `[-1, 1]`, in the order of bytes of this machine.
    Float,
}

impl Depth {
    /// How values are stored with this [`DataSpec::range`].
    pub fn of_range(range: Option<[f64; 2]>) -> Self {
        if range.is_some() { Self::Float } else { Self::Byte }
    }

    /// The bytes of a value.
    pub fn bytes(self) -> usize {
        match self {
            Self::Byte => size_of::<u8>(),
            Self::Float => size_of::<f32>(),
        }
    }
}

/// A data set and the shape its images are brought to.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSpec {
    /// Where the images are.
    pub kind: SourceKind,
    /// The shape of the result.
    pub image: ImageShape,
    /// Side of the centred square that is cut out first; `None` keeps the whole image.
    pub crop: Option<u32>,
    /// What happens to images of another proportion.
    pub fit: Fit,
    /// What becomes of transparency.
    pub alpha: Alpha,
    /// The stored values that become -1 and 1, which keeps all bits that files have. `None`: images of more than 8 bits
    /// are reduced to 8, and 0 to 255 becomes -1 to 1.
    pub range: Option<[f64; 2]>,
    /// Lets the decoder of JPEG files shrink images to a half, a quarter or an eighth, as long as they need not be
    /// enlarged afterwards: faster, and not quite the same pixels.
    pub jpeg_shrink: bool,
    /// Most pixels (width times height) of an image file; a larger one is not decoded, since it might not fit into
    /// memory.
    pub max_pixels: u64,
    /// What happens at an image that cannot be used: it does not decode, cannot be opened, or is not in CelebA's lists.
    pub on_corrupt: OnCorrupt,
}

impl DataSpec {
    /// How the values of the images are stored on their way to the network.
    pub fn depth(&self) -> Depth {
        Depth::of_range(self.range)
    }

    /// Checks the numbers; whether the files are there shows when the data set is opened.
    ///
    /// # Errors
    /// [`SpecError`] in the field `count`, `crop`, `alpha`, `range`, or one of `image`.
    pub fn validate(&self, naming: Naming) -> Result<(), SpecError> {
        if let SourceKind::Synthetic { count, .. } = self.kind {
            positive(&naming.path("count"), count)?;
        }
        self.image.validate(naming)?;
        self.image.validate_channels(naming)?;
        in_range(&naming.path("crop"), 0, self.crop != Some(0), "at least 1, or not set")?;
        self.validate_alpha(naming)?;
        self.validate_range(naming)?;
        match self.kind {
            SourceKind::Idx { .. } | SourceKind::Synthetic { .. } => self.validate_grey(naming),
            SourceKind::Folder { .. } | SourceKind::Shards(_) => Ok(()),
        }
    }

    fn validate_alpha(&self, naming: Naming) -> Result<(), SpecError> {
        let (alpha, channels) = (self.alpha, self.image.channels);
        let (fits, wanted) = match alpha {
            Alpha::Keep => (matches!(channels, 2 | 4), "2 (grey) or 4 (RGB)"),
            Alpha::Over([r, g, b]) => (matches!(channels, 1 | 3) || (r == g && g == b), "1 (grey) or 3 (RGB)"),
        };
        let (path, count) = (naming.path("alpha"), naming.path("image.channels"));
        require(
            fits,
            &path,
            || format!("{path} = {alpha} needs {count} = {wanted}, and it is {channels}"),
            || format!("Set {count} to one of these, or {path} to black"),
        )
    }

    fn validate_range(&self, naming: Naming) -> Result<(), SpecError> {
        let Some([low, high]) = self.range else { return Ok(()) };
        let path = naming.path("range");
        let fits = low < high && low.is_finite() && high.is_finite();
        in_range(&path, format!("[{low}, {high}]"), fits, "a lower number and a higher one, such as [0, 65535]")
    }

    /// Checks what only images in files can have: these are grey, in bytes.
    fn validate_grey(&self, naming: Naming) -> Result<(), SpecError> {
        let channels = self.image.channels;
        let path = naming.path("image.channels");
        in_range(&path, channels, matches!(channels, 1 | 3), "1 (grey) or 3 (RGB) for this kind of data")?;
        let path = naming.path("range");
        require(
            self.range.is_none(),
            &path,
            || format!("{path} is set, but this kind of data has 8 bits"),
            || format!("Remove {path}"),
        )
    }
}
