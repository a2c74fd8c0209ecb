//! The blocks of a bucket's files: in memory, on the disk, on their way, or announced. A block that is any of these is
//! not requested again.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::future::{self, BoxFuture, FutureExt, Shared};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::disk::Disk;
use super::fetch::{Fetcher, Target};
use super::memory::{BlockId, Memory};
use super::plan::{self, BLOCK};
use super::waiting::Waiting;
use crate::unread::Unread;

/// The blocks of one bucket.
pub(super) struct Blocks {
    pub fetcher: Fetcher,
    pub disk: Option<Disk>,
    state: Mutex<State>,
    /// How many announced requests are on their way at once; readers that wait do not queue.
    concurrency: usize,
    /// The bytes that may have been announced, requested and not yet read: where there is no disk, as many as stay in
    /// memory until then.
    room: usize,
    handle: Handle,
}

struct State {
    memory: Memory,
    /// The blocks that are on their way, to the disk too.
    flying: HashMap<BlockId, Flight>,
    waiting: Waiting,
    /// The announced requests that are on their way, and their bytes.
    sent: usize,
    sent_bytes: usize,
    /// How many requests have ended.
    landed: u64,
}

/// The request that fetches a block, or a block at hand.
#[derive(Clone)]
pub(super) struct Flight {
    pub content: Shared<BoxFuture<'static, Result<Bytes, Unread>>>,
    /// Where its content begins in the file.
    pub start: u64,
}

impl Flight {
    fn at_hand(content: Bytes, block: u64) -> Self {
        Flight { content: future::ready(Ok(content)).boxed().shared(), start: block * BLOCK }
    }
}

impl Blocks {
    /// Blocks that `handle`'s runtime fetches, `memory` bytes of them in memory.
    pub(super) fn new(
        fetcher: Fetcher,
        memory: usize,
        concurrency: usize,
        disk: Option<Disk>,
        handle: Handle,
    ) -> Arc<Self> {
        let room = if disk.is_some() { usize::MAX } else { memory / 2 };
        let state = State {
            memory: Memory::new(memory),
            flying: HashMap::new(),
            waiting: Waiting::default(),
            sent: 0,
            sent_bytes: 0,
            landed: 0,
        };
        Arc::new(Blocks { fetcher, disk, state: Mutex::new(state), concurrency, room, handle })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block that is in memory or on the disk, for reading.
    pub(super) fn held(self: &Arc<Self>, target: &Target, block: u64) -> Option<Bytes> {
        let found = {
            let mut state = self.state();
            let found = state.memory.get(id(target, block));
            // What has been read leaves room.
            self.send(&mut state);
            found
        };
        found.or_else(|| {
            let content = self.on_disk(target, block)?;
            self.state().memory.insert(id(target, block), content.clone(), false);
            Some(content)
        })
    }

    fn on_disk(&self, target: &Target, block: u64) -> Option<Bytes> {
        let bytes = plan::bytes(block..block + 1, target.version.length);
        self.disk.as_ref()?.get(&target.name, block, (bytes.end - bytes.start) as usize)
    }

    /// Whether a block need not be requested.
    pub(super) fn comes(&self, target: &Target, block: u64) -> bool {
        let comes = self.state().comes(id(target, block));
        comes || self.keeps(target, block)
    }

    fn keeps(&self, target: &Target, block: u64) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.keeps(&target.name, block))
    }

    /// Requests these blocks soon; returns how many they are without those that come anyway.
    pub(super) fn announce(self: &Arc<Self>, target: &Arc<Target>, blocks: BTreeSet<u64>) -> u64 {
        let landed = self.state().landed;
        let missing: Vec<u64> = blocks.into_iter().filter(|block| !self.comes(target, *block)).collect();
        let mut state = self.state();
        let mut announced = 0;
        for block in missing {
            // One that has landed meanwhile may be on the disk only.
            if !state.comes(id(target, block)) && (state.landed == landed || !self.keeps(target, block)) {
                state.waiting.push(target, block);
                announced += 1;
            }
        }
        self.send(&mut state);
        announced
    }

    /// The blocks for a reader that waits for them, in the order of `wanted`: requested now, together with `more` and
    /// with their announced neighbours.
    pub(super) fn demand(self: &Arc<Self>, target: &Arc<Target>, wanted: &[u64], more: Range<u64>) -> Vec<Flight> {
        let more: Vec<u64> = more.filter(|block| !self.comes(target, *block)).collect();
        let mut state = self.state();
        let mut at_hand = HashMap::new();
        for block in wanted.iter().chain(&more).copied() {
            let id = id(target, block);
            if state.flying.contains_key(&id) {
                continue;
            }
            // It may have landed since the reader looked.
            match state.memory.get(id).or_else(|| self.on_disk(target, block)) {
                Some(content) => {
                    at_hand.insert(block, content);
                }
                None => state.waiting.insert(target, block),
            }
        }
        for block in wanted.iter().chain(&more).copied() {
            if let Some((target, blocks)) = state.waiting.take(id(target, block)) {
                self.request(&mut state, target, blocks, false);
            }
        }
        let flight = |block: &u64| match at_hand.remove(block) {
            Some(content) => Some(Flight::at_hand(content, *block)),
            None => state.flying.get(&id(target, *block)).cloned(),
        };
        wanted.iter().filter_map(flight).collect()
    }

    /// Records that a block has been read from its request.
    pub(super) fn read(self: &Arc<Self>, target: &Target, block: u64) {
        let mut state = self.state();
        state.memory.get(id(target, block));
        self.send(&mut state);
    }

    /// Requests what was announced first, as far as there is room.
    fn send(self: &Arc<Self>, state: &mut State) {
        while state.sent < self.concurrency
            && state.sent_bytes + state.memory.unread() < self.room
            && let Some((target, blocks)) = state.waiting.pop()
        {
            self.request(state, target, blocks, true);
        }
    }

    /// Requests consecutive blocks.
    fn request(self: &Arc<Self>, state: &mut State, target: Arc<Target>, blocks: Range<u64>, announced: bool) {
        let (deliver, delivered) = oneshot::channel();
        let path = target.path.clone();
        let content = delivered.map(move |content| {
            let lost = |_| Err(Unread::Store { path, reason: "the request was lost. Please report this".into() });
            content.unwrap_or_else(lost)
        });
        let flight = Flight { content: content.boxed().shared(), start: blocks.start * BLOCK };
        state.flying.extend(blocks.clone().map(|block| (id(&target, block), flight.clone())));
        if announced {
            state.sent += 1;
            state.sent_bytes += size(&blocks);
        }
        self.handle.spawn(Arc::clone(self).fetch(target, blocks, announced, deliver));
    }

    /// Fetches consecutive blocks, delivers and keeps them. They count as on their way until they are on the disk.
    async fn fetch(
        self: Arc<Self>,
        target: Arc<Target>,
        blocks: Range<u64>,
        announced: bool,
        deliver: oneshot::Sender<Result<Bytes, Unread>>,
    ) {
        let fetched = self.fetcher.range(&target, plan::bytes(blocks.clone(), target.version.length)).await;
        if let Ok(content) = &fetched {
            let mut state = self.state();
            for block in blocks.clone() {
                // A copy: a slice would keep all of the request's blocks in memory.
                let content = Bytes::copy_from_slice(part(content, blocks.start * BLOCK, block));
                state.memory.insert(id(&target, block), content, announced);
            }
        }
        // Readers do not wait for the disk.
        let _ = deliver.send(fetched.clone());
        if let (Some(_), Ok(content)) = (&self.disk, fetched) {
            let (this, target, blocks) = (Arc::clone(&self), Arc::clone(&target), blocks.clone());
            let keep = move || {
                let Some(disk) = &this.disk else { return };
                for block in blocks.clone() {
                    disk.put(&target.name, block, part(&content, blocks.start * BLOCK, block));
                }
            };
            let _ = tokio::task::spawn_blocking(keep).await;
        }
        let mut state = self.state();
        for block in blocks.clone() {
            state.flying.remove(&id(&target, block));
        }
        state.landed += 1;
        if announced {
            state.sent -= 1;
            state.sent_bytes -= size(&blocks);
        }
        self.send(&mut state);
    }
}

impl State {
    fn comes(&mut self, id: BlockId) -> bool {
        self.memory.keeps(id) || self.flying.contains_key(&id) || self.waiting.contains(id)
    }
}

fn id(target: &Target, block: u64) -> BlockId {
    BlockId { object: target.number, block }
}

fn size(blocks: &Range<u64>) -> usize {
    ((blocks.end - blocks.start) * BLOCK) as usize
}

/// A block of `content`, which begins at `start` in the file.
pub(super) fn part(content: &[u8], start: u64, block: u64) -> &[u8] {
    let start = (block * BLOCK - start) as usize;
    &content[start..content.len().min(start + BLOCK as usize)]
}
