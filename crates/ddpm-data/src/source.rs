//! The interface of a data set: images of one shape, indexed by id.

use ddpm_spec::ImageShape;

use crate::classes::Class;
use crate::error::DataError;
use crate::findings::Findings;
use crate::skip::Skips;

/// A data set: any number of images of one shape, indexed by id.
#[expect(clippy::len_without_is_empty, reason = "an empty source cannot be opened")]
pub trait Source: Send + Sync {
    /// Number of images, at least 1 in any source from [`open`](crate::open); ids run from 0 to `len - 1`.
    fn len(&self) -> u64;

    /// The shape of every image: planar, one byte per value.
    fn image(&self) -> ImageShape;

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

    /// The permission to skip unusable images, if [`DataSpec::on_corrupt`](crate::DataSpec::on_corrupt) gave it:
    /// [`Loader`](crate::Loader) and [`preview`](crate::preview) use the next usable image instead, and warn once for
    /// each that they skip.
    fn skips(&self) -> Option<&Skips> {
        None
    }

    /// Writes image `id` as planar `C, H, W` into `out` (exactly [`ImageShape::values`] bytes) and returns its class.
    ///
    /// # Errors
    /// [`DataError::Image`] if this one image is unusable, [`DataError::Vanished`] if its file has disappeared,
    /// [`DataError::Io`] if it cannot be read, [`DataError::Request`] if `id` or the length of `out` is wrong. The
    /// content of `out` is then unspecified.
    fn read(&self, id: u64, out: &mut [u8]) -> Result<Option<u32>, DataError>;

    /// One phrase for the log: the number of images, their kind and location.
    fn describe(&self) -> String;
}

/// Refuses an id beyond the end or a buffer of the wrong length, the two ways to misuse [`Source::read`].
pub(crate) fn check_request(source: &dyn Source, id: u64, out: &[u8]) -> Result<(), DataError> {
    let (len, bytes) = (source.len(), source.image().values());
    if id < len && out.len() == bytes {
        return Ok(());
    }
    Err(DataError::Request { id, len, buffer: out.len(), bytes })
}
