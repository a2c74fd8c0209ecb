//! Images that cannot be used, stepped over where the user says so: which one takes the place of each.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::{DataError, Source};

/// Images in a row that cannot be used after which there is no point in looking for one that can.
const GIVE_UP: u64 = 1000;

/// The permission to step over images, with the ids of those that have been: each is named once.
#[derive(Debug, Default)]
pub struct Skips(Mutex<HashSet<u64>>);

/// Reads image `id`; or, where it cannot be used and the source [`skips`](Source::skips), the next one that can:
/// `id + 1` modulo the number of images and so on, which is the same choice on any rank of any world. Gives the id that
/// was read, and its class.
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
        if tried == n.min(GIVE_UP) {
            return Err(DataError::NothingDecodes { tried, last: error.fault() });
        }
        id = (id + 1) % n;
    }
}
