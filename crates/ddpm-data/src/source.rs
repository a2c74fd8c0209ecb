//! What a data set is: images of one shape, each found by its id.

use ddpm_spec::ImageShape;

use crate::classes::Class;
use crate::error::DataError;
use crate::findings::Findings;
use crate::skip::Skips;

/// A data set: any number of images of one shape, each found by its id.
#[expect(clippy::len_without_is_empty, reason = "an empty source cannot be opened")]
pub trait Source: Send + Sync {
    /// Number of images, at least 1 in any source from [`open`](crate::open); ids run from 0 to `len - 1`.
    fn len(&self) -> u64;

    /// The shape of every image: planar, one byte a value.
    fn image(&self) -> ImageShape;

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

    /// The permission to step over images that cannot be used, where [`DataSpec::on_corrupt`](crate::DataSpec::on_corrupt) gave it: [`Loader`](crate::Loader) and
    /// [`preview`](crate::preview) take the next one that can, and name each once in a warning.
    fn skips(&self) -> Option<&Skips> {
        None
    }

    /// Writes image `id` as planar `C, H, W` into `out` (exactly [`ImageShape::values`] bytes) and returns its class.
    ///
    /// # Errors
    /// [`DataError::Image`] where this one image cannot be used, [`DataError::Vanished`] or [`DataError::Io`] where its file
    /// has disappeared or cannot be read,
    /// [`DataError::Request`] where `id` or the length of `out` is wrong. `out` then holds nothing of use.
    fn read(&self, id: u64, out: &mut [u8]) -> Result<Option<u32>, DataError>;

    /// One phrase for the log: how many images, of what, from where.
    fn describe(&self) -> String;
}

/// Refuses an id beyond the end and a buffer of the wrong length, the two ways to misuse [`Source::read`].
pub(crate) fn check_request(source: &dyn Source, id: u64, out: &[u8]) -> Result<(), DataError> {
    let (len, bytes) = (source.len(), source.image().values());
    if id < len && out.len() == bytes {
        return Ok(());
    }
    Err(DataError::Request { id, len, buffer: out.len(), bytes })
}
