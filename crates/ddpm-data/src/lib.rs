//! Image data sets as square u8 images, the order in which a run sees them, and the loader that decodes ahead.
//!
//! A [`Source`] maps an id in `0..len` to one image and its class. An [`Order`] maps a position in the run to an id. A
//! [`Loader`] combines the two for one rank's slice of every global batch. All are pure functions of their settings, so
//! the images of a step depend neither on the number of ranks nor on restarts.
//!
//! ```
//! use ddpm_data::{DataSpec, Loader, LoaderConfig, OnCorrupt, Order, SourceKind, open};
//!
//! # fn main() -> Result<(), ddpm_data::DataError> {
//! let source = open(&DataSpec {
//!     kind: SourceKind::Synthetic { count: 1000, seed: 0 }, // Or Idx { .. }, Folder { .. }.
//!     image_size: 16,
//!     channels: 1,
//!     crop: None,
//!     max_pixels: 1 << 20,
//!     on_corrupt: OnCorrupt::Error,
//! })?;
//! let order = Order::new(source.len(), 42);
//! let config = LoaderConfig {
//!     global_batch: 64,
//!     slice: 0..32, // This is rank 0 of 2.
//!     start_step: 0,
//!     workers: 2,
//!     prefetch: 4,
//!     flip: false,
//!     flip_seed: 0,
//! };
//! let loader = Loader::new(source, order, config)?;
//! let batch = loader.next()?;
//! assert_eq!((batch.step, batch.images.len(), batch.labels.len()), (0, 32 * 16 * 16, 32));
//! assert_eq!(batch.ids[5], order.id_at(5));
//! loader.recycle(batch);
//! # Ok(())
//! # }
//! ```

mod celeba;
mod classes;
mod error;
mod findings;
mod folder;
mod glyphs;
mod gzip;
mod hash;
mod idx;
mod listing;
mod loader;
mod order;
mod pixels;
mod skip;
mod synthetic;

use std::path::PathBuf;
use std::sync::Arc;

pub use classes::{Class, class_phrases};
pub use error::DataError;
pub use findings::{Findings, IgnoredFiles, some_of};
pub use folder::class_folders;
pub use loader::{Batch, Loader, LoaderConfig};
pub use order::Order;
pub use skip::Skips;

/// Maximum height and width of the images of a source.
const MAX_SIDE: usize = 16384;

/// The shape of every image of a source: planar `C, H, W`, square, one byte per value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageSpec {
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// Height and width in pixels.
    pub size: usize,
}

impl ImageSpec {
    /// Bytes of one image, `C * H * W`.
    pub fn bytes(&self) -> usize {
        self.channels * self.size * self.size
    }
}

/// A data set: any number of images of one shape, indexed by id.
#[expect(clippy::len_without_is_empty, reason = "an empty source cannot be opened")]
pub trait Source: Send + Sync {
    /// Number of images, at least 1 in any source from [`open`]; ids run from 0 to `len - 1`.
    fn len(&self) -> u64;

    /// The shape of every image.
    fn spec(&self) -> ImageSpec;

    /// Number of classes, `None` if the images have no labels.
    fn classes(&self) -> Option<usize>;

    /// The classes in order, with their names and numbers of images; empty if the images have no labels.
    fn class_table(&self) -> Vec<Class> {
        Vec::new()
    }

    /// A hash of the mapping from ids to images and classes, independent of the location of the data set. For files it
    /// covers the names, not the contents.
    fn fingerprint(&self) -> u64;

    /// What a user should know about the data set apart from its images.
    fn findings(&self) -> Findings {
        Findings::default()
    }

    /// The permission to skip unusable images, if [`DataSpec::on_corrupt`] gave it: [`Loader`] and [`preview`] use the
    /// next usable image instead, and warn once for each that they skip.
    fn skips(&self) -> Option<&Skips> {
        None
    }

    /// Writes image `id` as planar `C, H, W` into `out` (exactly [`ImageSpec::bytes`] long) and returns its class.
    ///
    /// # Errors
    /// [`DataError::Image`] if this one image is unusable, [`DataError::Io`] if its file cannot be read,
    /// [`DataError::Request`] if `id` or the length of `out` is wrong. The content of `out` is then unspecified.
    fn read(&self, id: u64, out: &mut [u8]) -> Result<Option<u32>, DataError>;

    /// One phrase for the log: the number of images, their kind and location.
    fn describe(&self) -> String;
}

/// Which part of a data set to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// The training images.
    Train,
    /// CelebA's validation images; IDX sets have none.
    Valid,
    /// The held-out test images.
    Test,
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
    /// The first folder below the root: all folders there, with or without images, numbered in sorted order.
    SubFolder,
    /// A column of CelebA's `list_attr_celeba`: class 0 for -1, class 1 for 1.
    Attribute(String),
}

/// What to do about an unusable image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCorrupt {
    /// Stop with an error that names the file.
    Error,
    /// Warn, and use the next usable image in its place.
    Skip,
}

/// Where the classes of an IDX file come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdxLabels {
    /// No classes; label files are not read.
    None,
    /// The standard label file in the folder of images, if it exists; no labels if the images are given as a file.
    Beside,
    /// This label file, or the standard one in this folder.
    At(PathBuf),
}

/// Where the images are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// MNIST's format, plain or gzip.
    Idx {
        /// The image file, or a folder with the standard files of MNIST or Fashion-MNIST.
        images: PathBuf,
        /// Where classes come from.
        labels: IdxLabels,
        /// Which of a folder's files to use; no effect if `images` is a file.
        split: Split,
    },
    /// JPEG and PNG files below a folder, including CelebA.
    Folder {
        /// The folder, searched with all its sub-folders.
        root: PathBuf,
        /// The split to use. Without CelebA's `list_eval_partition`, `Train` means all images, and other splits are
        /// refused.
        split: Split,
        /// Where classes come from.
        labels: FolderLabels,
    },
    /// The built-in drawn digits.
    Synthetic {
        /// The number of digits in an epoch.
        count: u64,
        /// Seed of their shapes; another seed gives different digits.
        seed: u64,
    },
}

/// A data set and the shape to which its images are converted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataSpec {
    /// Where the images are.
    pub kind: SourceKind,
    /// Height and width of the result in pixels.
    pub image_size: usize,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// Side of the centred square that is cut out before scaling; `None` uses the largest one.
    pub crop: Option<u32>,
    /// Maximum number of pixels (width times height) of an image file; a larger image is not decoded, because it might
    /// not fit into memory.
    pub max_pixels: u64,
    /// What to do about an unusable image: one that does not decode, cannot be opened, or is not in CelebA's lists.
    pub on_corrupt: OnCorrupt,
}

/// Opens a data set: reads IDX files completely, lists folders, checks everything that can be checked without decoding,
/// and logs its [findings](Findings).
///
/// # Errors
/// Names the invalid file or setting and how to fix it.
pub fn open(spec: &DataSpec) -> Result<Arc<dyn Source>, DataError> {
    let image = ImageSpec { channels: spec.channels, size: spec.image_size };
    if !matches!(image.channels, 1 | 3) {
        return Err(DataError::Setting(format!(
            "data.channels is {}, but images have 1 channel (grey) or 3 (RGB); use one of these",
            image.channels
        )));
    }
    if !(1..=MAX_SIDE).contains(&image.size) || spec.crop == Some(0) {
        return Err(DataError::Setting(format!(
            "data.image_size is {} and data.crop is {}; image_size must be 1 to {}, crop must be unset or at least 1",
            image.size,
            spec.crop.map_or("not set".into(), |side| side.to_string()),
            MAX_SIDE
        )));
    }
    let source: Arc<dyn Source> = match &spec.kind {
        SourceKind::Idx { images, labels, split } => {
            Arc::new(idx::Idx::open(images, labels, *split, image, spec.crop)?)
        }
        SourceKind::Folder { root, split, labels } => {
            let reader = pixels::Reader::new(image, spec.crop, spec.max_pixels);
            Arc::new(folder::Folder::open(root, *split, labels, reader, spec.on_corrupt)?)
        }
        SourceKind::Synthetic { count, seed } => Arc::new(synthetic::Synthetic::new(*count, *seed, image)?),
    };
    source.findings().log();
    Ok(source)
}

/// Reads `n` images starting at id `first`, in the order of their ids: for previews and statistics of a data set.
/// Unusable images are replaced as in training if the source [`skips`](Source::skips) them.
///
/// # Errors
/// Those of [`Source::read`]; ids beyond the end are an error.
pub fn preview(source: &dyn Source, first: u64, n: usize) -> Result<Batch, DataError> {
    let bytes = source.spec().bytes();
    let mut batch = Batch { first_position: first, images: vec![0; n * bytes], ..Batch::default() };
    for (id, out) in (first..).zip(batch.images.chunks_exact_mut(bytes)) {
        let (read, class) = skip::read_or_next(source, id, out)?;
        batch.labels.push(loader::label(class));
        batch.ids.push(read);
        batch.skipped += u64::from(read != id);
    }
    Ok(batch)
}

/// Checks the arguments of [`Source::read`]: the id must exist, and the buffer must have the right length.
fn check_request(source: &dyn Source, id: u64, out: &[u8]) -> Result<(), DataError> {
    let (len, bytes) = (source.len(), source.spec().bytes());
    if id < len && out.len() == bytes {
        return Ok(());
    }
    Err(DataError::Request { id, len, buffer: out.len(), bytes })
}
