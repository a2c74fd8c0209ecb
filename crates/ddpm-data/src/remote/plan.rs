//! From the bytes that are wanted to the blocks that hold them.

use std::ops::Range;

/// The unit in which files are fetched and kept, in bytes.
pub(super) const BLOCK: u64 = 256 << 10;
/// The largest request, in blocks: 4 MiB.
pub(super) const LARGEST: u64 = 16;

/// The blocks that hold these bytes.
pub(super) fn blocks(bytes: Range<u64>) -> Range<u64> {
    bytes.start / BLOCK..bytes.end.div_ceil(BLOCK)
}

/// The bytes of these blocks of a file of `length` bytes.
pub(super) fn bytes(blocks: Range<u64>, length: u64) -> Range<u64> {
    (blocks.start * BLOCK).min(length)..(blocks.end * BLOCK).min(length)
}

/// Recognises a file that is read from one end to the other, to fetch more of it at once.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    /// The block that continues it.
    next: u64,
    /// How many blocks were fetched last.
    run: u64,
}

impl Sequence {
    /// The end of the blocks to fetch if these are missing: more each time if they continue those of the last call.
    pub(super) fn extended(&mut self, missing: Range<u64>) -> u64 {
        self.run = if missing.start == self.next && missing.start > 0 { (2 * self.run).min(LARGEST) } else { 1 };
        self.next = missing.end.max(missing.start + self.run);
        self.next
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_that_is_read_in_sequence_is_fetched_in_larger_and_larger_pieces() {
        let mut sequence = Sequence::default();
        let mut at = 0;
        let mut pieces = Vec::new();
        for _ in 0..7 {
            let end = sequence.extended(at..at + 1);
            pieces.push(end - at);
            at = end;
        }
        assert_eq!(pieces, [1, 2, 4, 8, 16, 16, 16]);
        assert_eq!(sequence.extended(5..6), 6, "elsewhere");
        assert_eq!(sequence.extended(900..930), 930, "as many as are missing");
    }

    proptest! {
        #[test]
        fn blocks_cover_the_bytes(start in 0u64..10_000_000, length in 1u64..3_000_000, rest in 0u64..1_000_000) {
            let file = start + length + rest;
            let blocks = blocks(start..start + length);
            let covered = bytes(blocks.clone(), file);
            prop_assert!(covered.start <= start && covered.end >= start + length && covered.end <= file);
            let each: BTreeSet<u64> = blocks.clone().collect();
            let ends = each.iter().map(|block| bytes(*block..block + 1, file));
            prop_assert_eq!(ends.map(|one| one.end - one.start).sum::<u64>(), covered.end - covered.start);
        }
    }
}
