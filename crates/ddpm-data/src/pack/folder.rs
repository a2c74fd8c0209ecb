//! The folder of a packed data set, on this machine or in an object store.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::DataError;
use crate::cursor::Cursor;
use crate::remote::{Bucket, Object};

/// A folder, or what is named like one in a bucket.
pub(super) struct Folder {
    root: PathBuf,
    bucket: Option<Arc<Bucket>>,
}

impl Folder {
    pub(super) fn new(root: &Path, bucket: Option<Arc<Bucket>>) -> Self {
        Folder { root: root.to_path_buf(), bucket }
    }

    /// The path of a file in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The file of this name; `None` if there is none.
    ///
    /// # Errors
    /// [`DataError::Io`] or [`DataError::Store`] if that cannot be known.
    pub(super) fn open(&self, name: &str) -> Result<Option<Cursor>, DataError> {
        let path = self.path(name);
        let cursor = match &self.bucket {
            Some(bucket) => match Object::open(bucket, &path) {
                Err(DataError::Format { .. }) => return Ok(None),
                opened => Cursor::new(Arc::new(opened?)),
            },
            None => match File::open(&path) {
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    return Ok(None);
                }
                opened => opened.and_then(|file| Cursor::new(Arc::new(file))),
            },
        };
        cursor.map(Some).map_err(DataError::io(&path))
    }
}
