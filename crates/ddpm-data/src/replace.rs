//! Replacing unusable images, if the user allows it.

use crate::error::DataError;
use crate::source::Source;

/// The number of consecutive unusable images after which to give up.
const GIVE_UP: u64 = 1000;

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
        if skips.note(id) {
            // Ranks skip different images, so a program that otherwise logs on one rank only can select this event by
            // its target.
            tracing::warn!(target: "ddpm_data::skip", id, "skipped: {}", error.fault());
        }
        tried += 1;
        if tried == n.min(GIVE_UP) {
            return Err(DataError::NothingDecodes { tried, last: error.fault() });
        }
        id = (id + 1) % n;
    }
}
