//! The state of a shard, to recognise that it has changed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// The size and the time of the last change of a file; for an object, its size and a hash of its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub bytes: u64,
    pub seconds: i64,
    pub nanoseconds: i64,
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Stamp { bytes: metadata.len(), seconds: metadata.mtime(), nanoseconds: metadata.mtime_nsec() }
    }
}
