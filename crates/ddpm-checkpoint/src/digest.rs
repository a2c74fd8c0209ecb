//! SHA-256 beside the network: of parts that land in any order, and of pieces that are being sent.

use std::collections::BTreeMap;

use object_store::PutPayload;
use sha2::{Digest, Sha256};
use tokio::{sync::oneshot, task::spawn_blocking};

use crate::manifest::hex;

/// Bytes between two looks at whether the digest is still wanted.
const CHUNK: usize = 1 << 20;

/// The digest of an object whose parts land in any order: those that follow each other from its beginning are hashed.
#[derive(Default)]
pub(crate) struct InOrder<'a> {
    hash: Sha256,
    next: usize,
    /// Parts that landed before an earlier one, in the places where they landed.
    early: BTreeMap<usize, Vec<&'a mut [u8]>>,
}

impl<'a> InOrder<'a> {
    /// Part `index` has landed in these places, in their order.
    pub fn land(&mut self, index: usize, places: Vec<&'a mut [u8]>) {
        self.early.insert(index, places);
        while let Some(places) = self.early.remove(&self.next) {
            places.iter().for_each(|place| self.hash.update(place));
            self.next += 1;
        }
    }

    /// The digest of the parts up to the first one that is missing, in hexadecimal.
    pub fn finish(self) -> String {
        hex(&self.hash.finalize())
    }
}

/// Hashes an object on a thread of its own while it is sent; stops if the receiver is dropped.
pub(crate) fn hash_beside(object: PutPayload) -> oneshot::Receiver<String> {
    let (sender, receiver) = oneshot::channel();
    spawn_blocking(move || {
        let mut hash = Sha256::new();
        for chunk in object.iter().flat_map(|piece| piece.chunks(CHUNK)) {
            if sender.is_closed() {
                return;
            }
            hash.update(chunk);
        }
        // Nobody waits any more: the upload was given up just now.
        let _ = sender.send(hex(&hash.finalize()));
    });
    receiver
}
