//! Why a record cannot be read.

use std::io;

/// Why a record cannot be read.
pub(super) enum Fault {
    /// The system could not read the file.
    Io(io::Error),
    /// This record is damaged or has no image; a phrase that says how.
    Record(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Io(error)
    }
}
