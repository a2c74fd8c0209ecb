//! The permission to step over images that cannot be used.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// The permission to step over images, with the ids of those that have been: each is named once.
#[derive(Debug, Default)]
pub struct Skips(Mutex<HashSet<u64>>);

impl Skips {
    /// Notes that image `id` was stepped over; whether that is the first time.
    pub(crate) fn note(&self, id: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id)
    }
}
