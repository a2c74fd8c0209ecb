//! Which image takes the place of one that cannot be used.

use crate::error::DataError;
use crate::source::Source;

/// Images in a row that cannot be used after which there is no point in looking for one that can.
const GIVE_UP: u64 = 1000;

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
        if skips.note(id) {
            // Programs that show only one rank's log select this event by its target: ranks skip different images.
            tracing::warn!(target: "ddpm_data::skip", id, "skipped: {}", error.fault());
        }
        tried += 1;
        if tried == n.min(GIVE_UP) {
            return Err(DataError::NothingDecodes { tried, last: error.fault() });
        }
        id = (id + 1) % n;
    }
}
