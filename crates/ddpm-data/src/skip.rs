//! The permission to skip unusable images.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// The permission to skip images, with the ids of those that were skipped, each of which is logged once.
#[derive(Debug, Default)]
pub struct Skips(Mutex<HashSet<u64>>);

impl Skips {
    /// Records that image `id` was skipped; returns whether it was the first time.
    pub(crate) fn note(&self, id: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id)
    }
}
