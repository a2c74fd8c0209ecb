//! Announced blocks that have not been requested: while they wait, neighbours join them, whichever step needs these.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use super::fetch::Target;
use super::memory::BlockId;
use super::plan::LARGEST;

/// Blocks in the order in which they were announced, which is that in which they will be read.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Some of them have been taken already, with a neighbour or by a reader.
    order: VecDeque<BlockId>,
    objects: HashMap<u64, (Arc<Target>, BTreeSet<u64>)>,
}

impl Waiting {
    pub(super) fn contains(&self, id: BlockId) -> bool {
        self.objects.get(&id.object).is_some_and(|(_, blocks)| blocks.contains(&id.block))
    }

    /// Appends a block.
    pub(super) fn push(&mut self, target: &Arc<Target>, block: u64) {
        self.order.push_back(BlockId { object: target.number, block });
        self.insert(target, block);
    }

    /// Adds a block that a reader is about to [take](Self::take).
    pub(super) fn insert(&mut self, target: &Arc<Target>, block: u64) {
        let new = || (Arc::clone(target), BTreeSet::new());
        self.objects.entry(target.number).or_insert_with(new).1.insert(block);
    }

    /// Takes the block that has waited for longest, and its neighbours, for one request.
    pub(super) fn pop(&mut self) -> Option<(Arc<Target>, Range<u64>)> {
        while let Some(id) = self.order.pop_front() {
            if let Some(request) = self.take(id) {
                return Some(request);
            }
        }
        None
    }

    /// Takes a block and its neighbours, up to [`LARGEST`], for one request; `None` if it is not there.
    pub(super) fn take(&mut self, id: BlockId) -> Option<(Arc<Target>, Range<u64>)> {
        let (target, blocks) = self.objects.get_mut(&id.object)?;
        if !blocks.remove(&id.block) {
            return None;
        }
        let mut request = id.block..id.block + 1;
        while request.end - request.start < LARGEST && blocks.remove(&request.end) {
            request.end += 1;
        }
        while request.end - request.start < LARGEST && request.start > 0 && blocks.remove(&(request.start - 1)) {
            request.start -= 1;
        }
        let (target, was_last) = (Arc::clone(target), blocks.is_empty());
        if was_last {
            self.objects.remove(&id.object);
        }
        Some((target, request))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use object_store::path::Path;
    use proptest::prelude::*;

    use super::*;
    use crate::remote::version::Version;

    fn target(number: u64) -> Arc<Target> {
        let version = Version { length: 1 << 30, tag: None, seconds: 0 };
        Arc::new(Target { number, key: Path::from("a"), path: PathBuf::from("s3://b/a"), version, name: "a".into() })
    }

    #[test]
    fn the_block_that_has_waited_for_longest_goes_first_with_its_neighbours() {
        let (one, other) = (target(1), target(2));
        let mut waiting = Waiting::default();
        for block in [7, 30, 6, 8] {
            waiting.push(&one, block);
        }
        waiting.push(&other, 9);
        waiting.insert(&one, 31);
        let mut next = || waiting.pop().map(|(target, blocks)| (target.number, blocks));
        assert_eq!([next(), next(), next(), next()], [Some((1, 6..9)), Some((1, 30..32)), Some((2, 9..10)), None]);
        assert!(waiting.objects.is_empty() && waiting.order.is_empty());
    }

    proptest! {
        #[test]
        fn requests_fetch_each_block_once_and_no_other(
            steps in prop::collection::vec(prop::collection::btree_set(0u64..200, 0..30), 0..10),
            reads in prop::collection::vec(0u64..200, 0..20),
        ) {
            let target = target(3);
            let mut waiting = Waiting::default();
            let wanted: BTreeSet<u64> = steps.iter().flatten().copied().collect();
            for block in steps.into_iter().flatten() {
                if !waiting.contains(BlockId { object: 3, block }) {
                    waiting.push(&target, block);
                }
            }
            let mut read = |block: u64| waiting.take(BlockId { object: 3, block });
            let taken: Vec<_> = reads.into_iter().filter_map(&mut read).collect();
            let rest = std::iter::from_fn(|| waiting.pop());
            let mut requests: Vec<Range<u64>> = taken.into_iter().chain(rest).map(|(_, blocks)| blocks).collect();
            requests.sort_by_key(|request| request.start);
            let fetched: Vec<u64> = requests.iter().cloned().flatten().collect();
            prop_assert!(fetched.iter().copied().eq(wanted.iter().copied()));
            prop_assert!(requests.iter().all(|request| request.end - request.start <= LARGEST));
            // Neighbours are apart only where together they would be too large.
            for pair in requests.windows(2).filter(|pair| pair[0].end == pair[1].start) {
                prop_assert!(pair.iter().any(|request| request.end - request.start == LARGEST));
            }
        }
    }
}
