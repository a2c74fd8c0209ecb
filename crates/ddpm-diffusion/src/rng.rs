//! Randomness by position: every draw is a function of (seed, stream, position) and of nothing else.
//!
//! A draw's generator is ChaCha with 8 rounds: the key spells the seed and the stream, the nonce is the position (the
//! index of a training sample in the run, or of an image to be sampled). No state is carried from one draw to the next,
//! so the draws are the same on any rank, in any batch and after any number of restarts.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use tch::Tensor;

/// What a draw is for: draws of different streams are independent at the same position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// A training sample's t.
    Timestep,
    /// The offset of a step's strata; the position is the step.
    StratumOffset,
    /// The noise in a training sample's x_t.
    Noise,
    /// Whether a training sample loses its label.
    LabelDropout,
    /// A training sample's dropout masks.
    Dropout,
    /// The initial noise x_T of a sampled image.
    Sample,
    /// The noise added to a sampled image on leaving this original timestep.
    SampleStep(u64),
    /// The noise in an evaluated image's x_t at this original timestep.
    Bound(u64),
    /// Which timestep of this stratum an image is evaluated at.
    BoundTimestep(u64),
    /// The noise of one corrector step at this original timestep.
    Corrector {
        /// The timestep.
        t: u64,
        /// Which of the steps there, from 0.
        step: u64,
    },
    /// The noise in pictures of the forward process.
    Picture,
    /// The choice of the samples in this subset, over which a kernel distance is averaged.
    SampleSubset(u64),
    /// The choice of the images that it is compared with.
    ReferenceSubset(u64),
}

/// Fills `out` with standard normal draws.
pub fn normals(seed: u64, stream: Stream, position: u64, out: &mut [f32]) {
    let mut rng = generator(seed, stream, position);
    out.fill_with(|| rng.sample(StandardNormal));
}

/// One draw from `[0, 1)`.
pub fn uniform(seed: u64, stream: Stream, position: u64) -> f64 {
    generator(seed, stream, position).random()
}

/// Standard normal noise `[positions, shape...]` in `f32` on the CPU, row i being `positions[i]`'s own.
pub fn noise_batch(seed: u64, stream: Stream, positions: &[u64], shape: &[i64]) -> Tensor {
    let rows: Vec<(Stream, u64)> = positions.iter().map(|&position| (stream, position)).collect();
    noise_rows(seed, &rows, shape)
}

/// The same where each row has a stream of its own.
pub fn noise_rows(seed: u64, rows: &[(Stream, u64)], shape: &[i64]) -> Tensor {
    let size = shape.iter().product::<i64>() as usize;
    let mut values = vec![0.0; rows.len() * size];
    for (row, &(stream, position)) in values.chunks_mut(size.max(1)).zip(rows) {
        normals(seed, stream, position, row);
    }
    let shape: Vec<i64> = [rows.len() as i64].iter().chain(shape).copied().collect();
    Tensor::from_slice(&values).view(shape.as_slice())
}

fn generator(seed: u64, stream: Stream, position: u64) -> ChaCha8Rng {
    // These numbers are part of the meaning of a run's seed: never renumber them.
    let (tag, detail, further) = match stream {
        Stream::Timestep => (0u64, 0, 0),
        Stream::StratumOffset => (1, 0, 0),
        Stream::Noise => (2, 0, 0),
        Stream::LabelDropout => (3, 0, 0),
        Stream::Dropout => (4, 0, 0),
        Stream::Sample => (5, 0, 0),
        Stream::SampleStep(t) => (6, t, 0),
        Stream::Bound(t) => (7, t, 0),
        Stream::BoundTimestep(stratum) => (8, stratum, 0),
        Stream::Corrector { t, step } => (9, t, step),
        Stream::Picture => (10, 0, 0),
        Stream::SampleSubset(subset) => (11, subset, 0),
        Stream::ReferenceSubset(subset) => (12, subset, 0),
    };
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&tag.to_le_bytes());
    key[16..24].copy_from_slice(&detail.to_le_bytes());
    key[24..].copy_from_slice(&u64::to_le_bytes(further));
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(position);
    rng
}
