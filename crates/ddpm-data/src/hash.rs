//! Keyed hashing of counters: randomness without state, the same on every machine.

/// Weyl increment of SplitMix64: 2^64 divided by the golden ratio, odd.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's finalizer (Steele, Lea, Flood 2014; Stafford's variant 13): a bijection in which every input bit flips
/// every output bit with a probability of about one half.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 64 bits that depend on `seed`, on their purpose (`stream`) and on `counter`.
pub(crate) fn keyed(seed: u64, stream: u64, counter: u64) -> u64 {
    let key = mix(mix(seed.wrapping_add(GAMMA)) ^ stream.wrapping_mul(GAMMA));
    mix(key ^ mix(counter.wrapping_add(GAMMA)))
}

/// A hash of successive byte strings, to check whether two data sets are the same. It is not cryptographic.
#[derive(Default)]
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    pub(crate) fn add(&mut self, piece: &[u8]) {
        let mut step = |word: u64| self.0 = mix(self.0.wrapping_add(GAMMA) ^ word);
        let (words, rest) = piece.as_chunks::<8>();
        words.iter().for_each(|word| step(u64::from_le_bytes(*word)));
        step(rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        // Makes the hash depend on the boundaries between pieces.
        step(piece.len() as u64);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0
    }
}

/// SplitMix64 seeded with a key, for the few random numbers that one sample needs.
pub(crate) struct Draws(u64);

impl Draws {
    pub(crate) fn new(key: u64) -> Self {
        Draws(key)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        mix(self.0)
    }

    /// Uniform in `[low, high)`, from the 24 highest bits.
    pub(crate) fn uniform(&mut self, low: f32, high: f32) -> f32 {
        let unit = (self.bits() >> 40) as f32 / (1u32 << 24) as f32;
        low + (high - low) * unit
    }
}
