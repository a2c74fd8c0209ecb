//! Image data sets as square u8 images, the order a run sees them in, and the loader that decodes ahead.
//!
//! A [`Source`] maps an id in `0..len` to one image and its class. An [`Order`] maps a position in the run to an id,
//! a [`Loader`] joins the two for one rank's slice of every global batch. Each is a pure function of its settings, so
//! what a step trains on depends neither on the number of ranks nor on how often the run was restarted.

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

use std::sync::Arc;

use ddpm_spec::Naming;

pub use classes::{Class, class_phrases};
pub use ddpm_spec::{DataSpec, FolderLabels, IdxLabels, OnCorrupt, SourceKind, Split};
pub use error::DataError;
pub use findings::{Findings, PassedOver, some_of};
pub use folder::class_folders;
pub use loader::{Batch, Loader, LoaderConfig};
pub use order::Order;
pub use skip::Skips;

/// The shape of every image of a source: planar `C, H, W`, square, one byte a value.
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

/// A data set: any number of images of one shape, each found by its id.
#[expect(clippy::len_without_is_empty, reason = "an empty source cannot be opened")]
pub trait Source: Send + Sync {
    /// Number of images, at least 1 in any source from [`open`]; ids run from 0 to `len - 1`.
    fn len(&self) -> u64;

    /// The shape of every image.
    fn spec(&self) -> ImageSpec;

    /// Number of classes, `None` where the images carry no labels.
    fn classes(&self) -> Option<usize>;

    /// The classes by number, with their names and numbers of images; empty where the images carry no labels.
    fn class_table(&self) -> Vec<Class> {
        Vec::new()
    }

    /// A hash of which image and which class belongs to which id, the same wherever the data set lies. Of files it covers
    /// the names, not the content.
    fn fingerprint(&self) -> u64;

    /// What a user should know of the data set beside its images.
    fn findings(&self) -> Findings {
        Findings::default()
    }

    /// The permission to step over images that cannot be used, where [`DataSpec::on_corrupt`] gave it: [`Loader`] and
    /// [`preview`] take the next one that can, and name each once in a warning.
    fn skips(&self) -> Option<&Skips> {
        None
    }

    /// Writes image `id` as planar `C, H, W` into `out` (exactly [`ImageSpec::bytes`] long) and returns its class.
    ///
    /// # Errors
    /// [`DataError::Image`] where this one image cannot be used, [`DataError::Io`] where its file cannot be read,
    /// [`DataError::Request`] where `id` or the length of `out` is wrong. `out` then holds nothing of use.
    fn read(&self, id: u64, out: &mut [u8]) -> Result<Option<u32>, DataError>;

    /// One phrase for the log: how many images, of what, from where.
    fn describe(&self) -> String;
}

/// Opens a data set: reads IDX files whole, lists folders, checks everything that can be checked without decoding, and
/// logs what it [found](Findings).
///
/// # Errors
/// Names the file or the setting that is wrong and how to fix it.
pub fn open(spec: &DataSpec) -> Result<Arc<dyn Source>, DataError> {
    spec.validate(Naming::PLAIN)?;
    let image = ImageSpec { channels: spec.channels, size: spec.image_size };
    let source: Arc<dyn Source> = match &spec.kind {
        SourceKind::Idx { images, labels, split } => {
            Arc::new(idx::Idx::open(images, labels, *split, image, spec.crop)?)
        }
        SourceKind::Folder { root, split, labels } => {
            let reader = pixels::Reader::new(image, spec.crop, spec.max_pixels);
            Arc::new(folder::Folder::open(root, *split, labels, reader, spec.on_corrupt)?)
        }
        SourceKind::Synthetic { count, seed } => Arc::new(synthetic::Synthetic::new(*count, *seed, image)),
    };
    source.findings().log();
    Ok(source)
}

/// Reads `n` images from id `first` on, in the order of their ids: for previews and for statistics of a data set. One
/// that cannot be used is replaced as in training, where the source [`skips`](Source::skips).
///
/// # Errors
/// Those of [`Source::read`]; ids beyond the end are refused.
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

/// Refuses an id beyond the end and a buffer of the wrong length, the two ways to misuse [`Source::read`].
fn check_request(source: &dyn Source, id: u64, out: &[u8]) -> Result<(), DataError> {
    let (len, bytes) = (source.len(), source.spec().bytes());
    if id < len && out.len() == bytes {
        return Ok(());
    }
    Err(DataError::Request { id, len, buffer: out.len(), bytes })
}
