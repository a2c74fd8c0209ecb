//! The interface of a data set: images of one shape, indexed by id.

use ddpm_spec::{Depth, ImageShape};

use crate::classes::Class;
use crate::error::DataError;
use crate::findings::Findings;
use crate::skip::Skips;

/// A data set: any number of images of one shape, indexed by id.
#[expect(clippy::len_without_is_empty, reason = "an empty source cannot be opened")]
pub trait Source: Send + Sync {
    /// Number of images, at least 1 in any source from [`open`](crate::open); ids run from 0 to `len - 1`.
    fn len(&self) -> u64;

    /// The shape of every image.
    fn image(&self) -> ImageShape;

    /// How the values of every image are stored.
    fn depth(&self) -> Depth {
        Depth::Byte
    }

    /// Number of classes, `None` if the images have no labels.
    fn classes(&self) -> Option<usize>;

    /// The classes in order, with their names and numbers of images; empty if the images have no labels.
    fn class_table(&self) -> Vec<Class> {
        Vec::new()
    }

    /// A hash of the mapping from ids to images and classes, independent of the location of the data set. For files it
    /// covers the names, not the contents.
    fn fingerprint(&self) -> u64;

    /// The id of the first image of each file of many images, and the number of all images at the end: for
    /// [`Order::in_windows`](crate::Order::in_windows). `None` if the images are not in such files.
    fn files(&self) -> Option<Vec<u64>> {
        None
    }

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

    /// Writes image `id` as planar `C, H, W` into `out` (exactly [`image_bytes`]) and returns its class.
    ///
    /// # Errors
    /// [`DataError::Image`] if this one image is unusable, [`DataError::Vanished`] if its file has disappeared,
    /// [`DataError::Io`] if it cannot be read, [`DataError::Request`] if `id` or the length of `out` is wrong. The
    /// content of `out` is then unspecified.
    fn read(&self, id: u64, out: &mut [u8]) -> Result<Option<u32>, DataError>;

    /// Image `id` as it is stored, if it is stored as an image file: for packing, which should not decode and encode
    /// again.
    ///
    /// # Errors
    /// Those of [`read`](Self::read), as far as they do not concern the content.
    fn encoded(&self, _id: u64) -> Result<Option<Encoded>, DataError> {
        Ok(None)
    }

    /// The bytes that may be on their way before they are used; 0 if the images are at hand, and nothing need be
    /// [announced](Self::announce).
    fn horizon(&self) -> u64 {
        0
    }

    /// Begins to fetch these images, which will be read soon. Returns how many bytes this requests.
    fn announce(&self, _ids: &[u64]) -> u64 {
        0
    }

    /// The requests for images so far; `None` if they are at hand.
    fn traffic(&self) -> Option<Traffic> {
        None
    }

    /// One phrase for the log: the number of images, their kind and location.
    fn describe(&self) -> String;
}

/// The bytes of one image.
pub fn image_bytes(source: &dyn Source) -> usize {
    source.image().values() * source.depth().bytes()
}

/// What has been requested from an object store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// The number of requests for contents, retries excluded.
    pub requests: u64,
    /// The bytes of the responses.
    pub bytes: u64,
}

/// An image file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Its content.
    pub bytes: Vec<u8>,
    /// Its path inside the data set; empty if it has none.
    pub name: String,
    /// The class of the image.
    pub class: Option<u32>,
}

/// Refuses an id beyond the end or a buffer of the wrong length, the two ways to misuse [`Source::read`].
pub(crate) fn check_request(source: &dyn Source, id: u64, out: &[u8]) -> Result<(), DataError> {
    let (len, bytes) = (source.len(), image_bytes(source));
    if id < len && out.len() == bytes {
        return Ok(());
    }
    Err(DataError::Request { id, len, buffer: out.len(), bytes })
}
