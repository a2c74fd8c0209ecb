//! Skipping unusable images, if the user allows it: which image replaces each.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::{DataError, Source};

/// The number of consecutive unusable images after which to give up.
const MAX_ATTEMPTS: u64 = 1000;

/// The permission to skip images, with the ids of those that were skipped, each of which is logged once.
#[derive(Debug, Default)]
pub struct Skips(Mutex<HashSet<u64>>);

/// Reads image `id` or, if it is unusable and the source [`skips`](Source::skips) such images, the next usable one (in
/// cyclic order), the same on every rank and for any number of ranks. Returns the id that was read, and its class.
///
/// # Errors
/// Those of [`Source::read`], and [`DataError::NothingDecodes`].
pub(crate) fn read_or_next(source: &dyn Source, mut id: u64, out: &mut [u8]) -> Result<(u64, Option<u32>), DataError> {
    let n = source.len();
    let mut tried = 0;
    loop {
        let (error, skips) = match (source.read(id, out), source.skips()) {
            (Err(error @ DataError::Image { .. }), Some(skips)) => (error, skips),
            (other, _) => return other.map(|class| (id, class)),
        };
        if skips.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id) {
            tracing::warn!(id, "skipped: {}", error.fault());
        }
        tried += 1;
        if tried == n.min(MAX_ATTEMPTS) {
            return Err(DataError::NothingDecodes { tried, last: error.fault() });
        }
        id = (id + 1) % n;
    }
}
