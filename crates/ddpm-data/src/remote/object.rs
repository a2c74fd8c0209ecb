//! One file in a bucket.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::bucket::Bucket;
use super::fetch::Target;
use super::plan::Sequence;
use super::version::Version;
use crate::DataError;
use crate::ranges::Ranges;

/// Whether a path is the address of an object store.
pub(crate) fn is_address(path: &Path) -> bool {
    let text = path.to_string_lossy();
    ["s3://", "gs://", "az://"].iter().any(|scheme| text.starts_with(scheme))
}

/// A file in a bucket, in the state that it had when it was opened: reading it fails if it has changed.
pub(crate) struct Object {
    bucket: Arc<Bucket>,
    target: Arc<Target>,
    sequence: Mutex<Sequence>,
}

impl Object {
    /// The file at an address in the bucket.
    ///
    /// # Errors
    /// [`DataError::Format`] if there is none, [`DataError::Store`] if the store does not say.
    pub(crate) fn open(bucket: &Arc<Bucket>, address: &Path) -> Result<Self, DataError> {
        let target = Arc::new(bucket.target(address)?);
        Ok(Object { bucket: Arc::clone(bucket), target, sequence: Mutex::default() })
    }

    /// Its state.
    pub(crate) fn version(&self) -> &Version {
        &self.target.version
    }

    /// Begins to fetch these parts, which will be read soon. Returns the bytes of the requests.
    pub(crate) fn announce(&self, parts: impl IntoIterator<Item = Range<u64>>) -> u64 {
        self.bucket.announce(&self.target, parts)
    }
}

impl Ranges for Object {
    fn length(&self) -> io::Result<u64> {
        Ok(self.target.version.length)
    }

    fn read_exact_at(&self, out: &mut [u8], start: u64) -> io::Result<()> {
        let end = start.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > self.target.version.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let extended = |missing| self.sequence.lock().unwrap_or_else(PoisonError::into_inner).extended(missing);
        self.bucket.read(&self.target, start, out, extended).map_err(io::Error::other)
    }
}
