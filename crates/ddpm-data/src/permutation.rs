//! Keyed permutations of `0..n`, computed element by element.

use crate::hash::mix;

/// Four rounds of a good round function already give a pseudo-random permutation (Luby and Rackoff 1988); the halves
/// are short here, hence two more.
const ROUNDS: usize = 6;

/// The permutations of `0..n`, one per key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Permutation {
    n: u64,
    half_bits: u32,
}

impl Permutation {
    /// Those of `0..n`; `n` must not be 0.
    pub(crate) fn of(n: u64) -> Self {
        // The network permutes numbers of 2 * half_bits bits: fewer than 4 n of them, but at least 64, so that
        // permutations differ even for small n.
        let bits = u64::BITS - (n - 1).leading_zeros();
        Permutation { n, half_bits: bits.div_ceil(2).max(3) }
    }

    /// Where the permutation of `key` maps `index`, which is below n.
    pub(crate) fn apply(&self, key: u64, mut index: u64) -> u64 {
        // Cycle walking (Black and Rogaway 2002): applying a permutation of a larger set until the result is in `0..n`
        // again permutes `0..n`.
        loop {
            index = self.network(key, index);
            if index < self.n {
                return index;
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
