//! The order of samples: a keyed permutation of all ids per epoch, in constant memory.

use crate::hash::{keyed, mix};

/// The stream of [`keyed`] for the order.
const STREAM: u64 = 1;
/// Four rounds of a good round function already give a pseudo-random permutation (Luby and Rackoff 1988); the halves
/// are short here, hence two more.
const ROUNDS: usize = 6;

/// The sequence of sample ids of a whole run.
///
/// Position `p` belongs to epoch `p / n`, and within each epoch every id in `0..n` occurs exactly once. An id is
/// computed from its position alone: a resume needs no state and no replay, and ranks with disjoint positions get
/// disjoint samples.
///
/// A run whose data set has changed continues with an order that [begins](Self::beginning) at its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    n: u64,
    seed: u64,
    half_bits: u32,
    /// The first position, and the epoch that begins there.
    start: u64,
    epoch: u64,
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
        // The network permutes numbers of 2 * half_bits bits: fewer than 4 n of them, but at least 64, so that epochs
        // differ even for small n.
        let bits = u64::BITS - (n - 1).leading_zeros();
        Order { n, seed, half_bits: bits.div_ceil(2).max(3), start, epoch }
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
        // Cycle walking (Black and Rogaway 2002): applying a permutation of a larger set until the result is in `0..n`
        // again permutes `0..n`.
        let mut id = self.since_start(position) % self.n;
        loop {
            id = self.network(key, id);
            if id < self.n {
                return id;
            }
        }
    }

    /// A balanced Feistel network: a bijection on numbers of `2 * half_bits` bits for any round function.
    fn network(&self, key: u64, value: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for round in 0..ROUNDS as u64 {
            let f = mix(key.wrapping_add(mix(right ^ (round << 56)))) >> (u64::BITS - self.half_bits);
            (left, right) = (right, left ^ f);
        }
        left << self.half_bits | right
    }
}
