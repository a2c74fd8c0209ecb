//! Reading a file at any position, wherever it is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

use crate::unread::Unread;

/// A file that several threads read at any position.
pub(crate) trait Ranges: Send + Sync {
    /// Its size in bytes.
    fn length(&self) -> io::Result<u64>;

    /// Fills `out` with the bytes from `start` on. An error inside which there is an [`Unread`] says what is wrong.
    fn read_exact_at(&self, out: &mut [u8], start: u64) -> io::Result<()>;
}

impl Ranges for File {
    fn length(&self) -> io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }

    fn read_exact_at(&self, out: &mut [u8], start: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, out, start)
    }
}

/// A file that remembers why reading it failed: what reads a format reports every failure as damage.
pub(crate) struct Watched {
    file: Arc<dyn Ranges>,
    failure: OnceLock<Unread>,
}

impl Watched {
    pub(crate) fn new(file: Arc<dyn Ranges>) -> Arc<Self> {
        Arc::new(Watched { file, failure: OnceLock::new() })
    }

    /// Why reading failed first, if it was the store's doing.
    pub(crate) fn failure(&self) -> Option<Unread> {
        self.failure.get().cloned()
    }
}

impl Ranges for Watched {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read_exact_at(&self, out: &mut [u8], start: u64) -> io::Result<()> {
        self.file.read_exact_at(out, start).inspect_err(|error| {
            if let Some(unread) = error.get_ref().and_then(|inner| inner.downcast_ref::<Unread>()) {
                self.failure.get_or_init(|| unread.clone());
            }
        })
    }
}
