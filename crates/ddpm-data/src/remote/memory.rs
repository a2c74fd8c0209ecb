//! The blocks that were used last, in memory.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

/// Which block of which file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct BlockId {
    /// The number of the file in this process.
    pub object: u64,
    /// The number of the block in the file.
    pub block: u64,
}

/// Blocks up to a number of bytes; the one that was not used for longest goes first.
#[derive(Debug)]
pub(super) struct Memory {
    limit: usize,
    held: usize,
    /// Counts uses.
    now: u64,
    blocks: HashMap<BlockId, (Bytes, u64)>,
    /// The blocks by their last use.
    uses: BTreeMap<u64, BlockId>,
}

impl Memory {
    pub(super) fn new(limit: usize) -> Self {
        Memory { limit, held: 0, now: 0, blocks: HashMap::new(), uses: BTreeMap::new() }
    }

    pub(super) fn get(&mut self, id: BlockId) -> Option<Bytes> {
        let (bytes, used) = self.blocks.get_mut(&id)?;
        self.now += 1;
        self.uses.remove(used);
        self.uses.insert(self.now, id);
        *used = self.now;
        Some(bytes.clone())
    }

    pub(super) fn insert(&mut self, id: BlockId, bytes: Bytes) {
        self.now += 1;
        self.held += bytes.len();
        self.uses.insert(self.now, id);
        if let Some((old, used)) = self.blocks.insert(id, (bytes, self.now)) {
            self.held -= old.len();
            self.uses.remove(&used);
        }
        while self.held > self.limit
            && let Some((_, oldest)) = self.uses.pop_first()
        {
            self.held -= self.blocks.remove(&oldest).map_or(0, |(bytes, _)| bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_the_blocks_that_were_used_last(uses in prop::collection::vec((0u64..12, any::<bool>()), 1..200)) {
            let mut memory = Memory::new(50);
            // The blocks in the order of their last use, all of ten bytes: five fit.
            let mut expected: Vec<u64> = Vec::new();
            for (block, get) in uses {
                let id = BlockId { object: 3, block };
                let known = expected.contains(&block);
                if get {
                    let found = memory.get(id);
                    prop_assert_eq!(found, known.then(|| Bytes::from(vec![block as u8; 10])));
                    if !known {
                        continue;
                    }
                } else {
                    memory.insert(id, Bytes::from(vec![block as u8; 10]));
                }
                expected.retain(|other| *other != block);
                expected.push(block);
                expected.drain(..expected.len().saturating_sub(5));
                prop_assert_eq!(memory.held, 10 * expected.len());
                prop_assert_eq!((memory.blocks.len(), memory.uses.len()), (expected.len(), expected.len()));
            }
        }
    }
}
