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
    /// The bytes of the blocks that were announced and have not been read.
    unread: usize,
    /// Counts uses.
    now: u64,
    blocks: HashMap<BlockId, Held>,
    /// The blocks by their last use.
    uses: BTreeMap<u64, BlockId>,
}

#[derive(Debug)]
struct Held {
    content: Bytes,
    /// When it was used last.
    used: u64,
    unread: bool,
}

impl Memory {
    pub(super) fn new(limit: usize) -> Self {
        Memory { limit, held: 0, unread: 0, now: 0, blocks: HashMap::new(), uses: BTreeMap::new() }
    }

    /// The bytes of the blocks that were announced and have not been read.
    pub(super) fn unread(&self) -> usize {
        self.unread
    }

    /// A block for reading.
    pub(super) fn get(&mut self, id: BlockId) -> Option<Bytes> {
        let held = self.touch(id)?;
        let content = held.content.clone();
        if std::mem::take(&mut held.unread) {
            self.unread -= content.len();
        }
        Some(content)
    }

    /// Whether a block is there; it then counts as used, so that it stays until it is read.
    pub(super) fn keeps(&mut self, id: BlockId) -> bool {
        self.touch(id).is_some()
    }

    fn touch(&mut self, id: BlockId) -> Option<&mut Held> {
        let held = self.blocks.get_mut(&id)?;
        self.now += 1;
        self.uses.remove(&held.used);
        self.uses.insert(self.now, id);
        held.used = self.now;
        Some(held)
    }

    /// Adds a block; `unread` says that it was announced, so that room is left for it until it is read.
    pub(super) fn insert(&mut self, id: BlockId, content: Bytes, unread: bool) {
        self.remove(id);
        self.now += 1;
        self.held += content.len();
        self.unread += if unread { content.len() } else { 0 };
        self.uses.insert(self.now, id);
        self.blocks.insert(id, Held { content, used: self.now, unread });
        while self.held > self.limit
            && let Some((_, &oldest)) = self.uses.first_key_value()
        {
            self.remove(oldest);
        }
    }

    fn remove(&mut self, id: BlockId) {
        let Some(Held { content, used, unread }) = self.blocks.remove(&id) else { return };
        self.uses.remove(&used);
        self.held -= content.len();
        self.unread -= if unread { content.len() } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_the_blocks_that_were_used_last(uses in prop::collection::vec((0u64..12, 0..4), 1..200)) {
            let mut memory = Memory::new(50);
            // The blocks in the order of their last use, all of ten bytes: five fit.
            let mut expected: Vec<u64> = Vec::new();
            let mut unread = BTreeSet::new();
            for (block, action) in uses {
                let id = BlockId { object: 3, block };
                let known = expected.contains(&block);
                match action {
                    0 => {
                        let found = memory.get(id);
                        prop_assert_eq!(found, known.then(|| Bytes::from(vec![block as u8; 10])));
                        unread.remove(&block);
                    }
                    1 => prop_assert_eq!(memory.keeps(id), known),
                    _ => {
                        memory.insert(id, Bytes::from(vec![block as u8; 10]), action == 2);
                        unread.remove(&block);
                        unread.extend((action == 2).then_some(block));
                    }
                }
                if action < 2 && !known {
                    continue;
                }
                expected.retain(|other| *other != block);
                expected.push(block);
                expected.drain(..expected.len().saturating_sub(5));
                unread.retain(|block| expected.contains(block));
                prop_assert_eq!((memory.held, memory.unread()), (10 * expected.len(), 10 * unread.len()));
                prop_assert_eq!((memory.blocks.len(), memory.uses.len()), (expected.len(), expected.len()));
            }
        }
    }
}
