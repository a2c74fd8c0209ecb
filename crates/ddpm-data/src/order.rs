//! The order of samples: a keyed permutation of all ids per epoch, in constant memory.

use crate::hash::keyed;
use crate::permutation::Permutation;
use crate::windows::Windows;

/// The stream of [`keyed`] for the order.
const STREAM: u64 = 1;

/// The sequence of sample ids of a whole run.
///
/// Position `p` belongs to epoch `p / n`, and within each epoch every id in `0..n` occurs exactly once. An id is
/// computed from its position alone: a resume needs no state and no replay, and ranks with disjoint positions get
/// disjoint samples.
///
/// A run whose data set has changed continues with an order that [begins](Self::beginning) at its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    n: u64,
    seed: u64,
    shuffle: Shuffle,
    /// The first position, and the epoch that begins there.
    start: u64,
    epoch: u64,
}

/// How an epoch is shuffled.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Shuffle {
    /// Any image may follow any other.
    Global(Permutation),
    /// Images of few files at a time.
    Windows(Windows),
}

#[expect(clippy::len_without_is_empty, reason = "an order is never empty")]
impl Order {
    /// The order of `n` samples for `seed`.
    ///
    /// # Panics
    /// If `n` is 0; sources from [`crate::open`] are never empty.
    pub fn new(n: u64, seed: u64) -> Self {
        Self::beginning(n, seed, 0, 0)
    }

    /// The order of `n` samples for `seed` that begins at position `start` with a full epoch, number `epoch`. Different
    /// epoch numbers give different orders. Positions before `start` are not defined.
    ///
    /// # Panics
    /// If `n` is 0. The functions below panic for a position before `start`.
    pub fn beginning(n: u64, seed: u64, start: u64, epoch: u64) -> Self {
        assert!(n > 0, "an order needs at least one sample");
        Order { n, seed, shuffle: Shuffle::Global(Permutation::of(n)), start, epoch }
    }

    /// The same epochs, but with the files of the data set in a random order, and only the images of `files`
    /// consecutive files of that order mixed with each other. `starts` holds the id of the first image of each file, and
    /// the number of all images at the end, as [`crate::Source::files`] returns it. For reading large files from
    /// elsewhere: only so many of them are in use at a time.
    ///
    /// # Panics
    /// If `starts` does not end with the number of samples of this order.
    pub fn in_windows(self, starts: Vec<u64>, files: u64) -> Self {
        let windows = Windows::new(starts, files);
        assert_eq!(windows.images(), self.n, "the files hold another number of samples");
        Order { shuffle: Shuffle::Windows(windows), ..self }
    }

    /// Number of samples in an epoch.
    pub fn len(&self) -> u64 {
        self.n
    }

    /// The epoch of `position`, counted from 0.
    pub fn epoch_of(&self, position: u64) -> u64 {
        self.epoch + self.since_start(position) / self.n
    }

    /// The number of epochs that have begun before `position`, at which a new order of the run may begin.
    pub fn epochs_begun(&self, position: u64) -> u64 {
        self.epoch + self.since_start(position).div_ceil(self.n)
    }

    /// The number of epochs passed at `position`, including fractions.
    pub fn epochs_passed(&self, position: u64) -> f64 {
        self.epoch as f64 + self.since_start(position) as f64 / self.n as f64
    }

    fn since_start(&self, position: u64) -> u64 {
        assert!(position >= self.start, "the order begins at {}, after {position}", self.start);
        position - self.start
    }

    /// The sample id at `position`.
    pub fn id_at(&self, position: u64) -> u64 {
        let key = keyed(self.seed, STREAM, self.epoch_of(position));
        let index = self.since_start(position) % self.n;
        match &self.shuffle {
            Shuffle::Global(permutation) => permutation.apply(key, index),
            Shuffle::Windows(windows) => windows.apply(key, index),
        }
    }
}
