//! The timesteps at which each image is evaluated.

use std::ops::Range;

use ddpm_diffusion::{Stream, uniform};

use crate::EvalError;

/// The timesteps `0..T` divided into strata; every image is evaluated at one timestep of each.
///
/// The timestep is uniform in its stratum, so its term times the length of the stratum is an unbiased estimate of the
/// stratum's part of the bound. With strata of length 1 it is exact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strata {
    /// The end of each stratum, ascending; the last entry is T.
    ends: Vec<usize>,
}

impl Strata {
    /// One stratum per timestep: the exact bound.
    pub fn every(timesteps: usize) -> Self {
        Self { ends: (1..=timesteps).collect() }
    }

    /// `count` strata: one for t = 0, the decoder's, and others that grow with t, because the terms of the bound fall
    /// steeply at first. They end at `1 + k + (T - 1 - m) (k/m)²`, rounded down, for k = 1 to m = `count` - 1.
    ///
    /// # Errors
    /// If `count` is below 2 or above T.
    pub fn sampled(timesteps: usize, count: usize) -> Result<Self, EvalError> {
        if !(2..=timesteps).contains(&count) {
            return Err(EvalError::Timesteps { requested: count, timesteps });
        }
        let others = count - 1;
        let spread = (timesteps - count) as u128;
        let end = |k: usize| 1 + k + (spread * (k * k) as u128 / (others * others) as u128) as usize;
        Ok(Self { ends: (0..count).map(end).collect() })
    }

    /// The number of strata, which is the number of forward passes per image.
    #[expect(clippy::len_without_is_empty, reason = "there is always t = 0")]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// T.
    pub fn timesteps(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The timesteps of one stratum.
    pub fn range(&self, stratum: usize) -> Range<usize> {
        let start = if stratum == 0 { 0 } else { self.ends[stratum - 1] };
        start..self.ends[stratum]
    }

    /// The timestep of `stratum` at which image `id` is evaluated: a function of (seed, id, stratum).
    pub fn draw(&self, stratum: usize, seed: u64, id: u64) -> usize {
        let range = self.range(stratum);
        match range.len() {
            1 => range.start,
            length => {
                let unit = uniform(seed, Stream::BoundTimestep(stratum as u64), id);
                // The product may round up to the length.
                range.start + ((unit * length as f64) as usize).min(length - 1)
            }
        }
    }
}
