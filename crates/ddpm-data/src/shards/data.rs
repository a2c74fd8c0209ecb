//! Where the bytes of a shard are: in a local file, or in an object store.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::stamp::Stamp;
use crate::DataError;
use crate::hash::Fingerprint;
use crate::ranges::Ranges;
use crate::remote::{Bucket, Object};

/// The bytes of a shard, in the state that its records describe.
pub(super) enum Data {
    /// A file.
    Local {
        /// Its path: the user's, or one in the cache.
        path: PathBuf,
        stamp: Stamp,
    },
    /// An object.
    Remote(Arc<Object>),
}

impl Data {
    /// What is at `path` now.
    ///
    /// # Errors
    /// [`DataError::Io`] or [`DataError::Store`] if it cannot be read, [`DataError::Format`] if it is not a file.
    pub(super) fn find(path: &Path, bucket: Option<&Arc<Bucket>>) -> Result<Self, DataError> {
        if let Some(bucket) = bucket {
            return Ok(Data::Remote(Arc::new(Object::open(bucket, path)?)));
        }
        let metadata = path.metadata().map_err(DataError::io(path))?;
        // Opening a pipe without a writer would block forever.
        if !metadata.is_file() {
            return Err(DataError::format(path, "this is not a file; correct data.path"));
        }
        Ok(Data::Local { path: path.to_path_buf(), stamp: Stamp::of(&metadata) })
    }

    /// The state: another one if the bytes have changed.
    pub(super) fn stamp(&self) -> Stamp {
        match self {
            Data::Local { stamp, .. } => *stamp,
            Data::Remote(object) => {
                let version = object.version();
                let mut hash = Fingerprint::default();
                hash.add(version.tag.as_deref().unwrap_or_default().as_bytes());
                // A store's name for the content is worth more than the time, which a copy changes.
                let seconds = if version.tag.is_some() { 0 } else { version.seconds };
                Stamp { bytes: version.length, seconds, nanoseconds: hash.value() as i64 }
            }
        }
    }

    /// Opens the bytes for reading. `shown` is the user's path of the shard, for messages.
    ///
    /// # Errors
    /// [`DataError::Vanished`], [`DataError::Changed`], [`DataError::Io`]; a store reports these when it is read.
    pub(super) fn open(&self, shown: &Path) -> Result<Arc<dyn Ranges>, DataError> {
        let (path, stamp) = match self {
            Data::Remote(object) => return Ok(Arc::clone(object) as Arc<dyn Ranges>),
            Data::Local { path, stamp } => (path, stamp),
        };
        let file = File::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => DataError::Vanished { path: path.clone() },
            _ => DataError::io(path)(error),
        })?;
        match Stamp::of(&file.metadata().map_err(DataError::io(path))?) == *stamp {
            true => Ok(Arc::new(file)),
            false => Err(DataError::Changed { path: shown.to_path_buf() }),
        }
    }
}
