//! The timestep of each training sample: uniform, stratified, or in proportion to recent losses.

use std::collections::VecDeque;
use std::num::NonZeroU64;

use ddpm_spec::TimestepSampling;
use serde::{Deserialize, Serialize};

use crate::DiffusionError;
use crate::rng::{Stream, uniform};

/// Losses remembered for each timestep (Nichol & Dhariwal 2021, section 3.3).
const HISTORY: usize = 10;
/// The share of draws that stay uniform, so that every timestep is drawn now and then.
const UNIFORM_SHARE: f64 = 0.001;

/// How t is drawn, in two parts: [`units`](Self::units), then [`draws`](Self::draws). Every draw depends on (seed, position) and, for the last, on the shared history of losses.
#[derive(Clone, Debug, PartialEq)]
pub enum TimestepSampler {
    /// Independent and uniform.
    Uniform {
        /// T.
        timesteps: usize,
    },
    /// Each t still uniform on its own, but a global batch of G holds one draw from each of G equal parts of `0..T`,
    /// which makes the batch's mean loss less noisy.
    Stratified {
        /// T.
        timesteps: usize,
        /// G: positions `k G .. (k + 1) G` are step k's batch.
        global_batch: NonZeroU64,
    },
    /// In proportion to the root mean square of recent losses.
    LossSecondMoment(LossSecondMoment),
}

/// One sample's timestep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// t, 0-based.
    pub t: usize,
    /// Importance weight 1/(T p(t)) to multiply the loss by, so that its mean is that of uniform t; 1 for uniform t.
    pub weight: f64,
}

impl TimestepSampler {
    /// Draws from `0..timesteps`, for global batches of `global_batch` samples, with an empty history of losses.
    pub fn new(sampling: TimestepSampling, timesteps: usize, global_batch: NonZeroU64) -> Self {
        match sampling {
            TimestepSampling::Uniform => Self::Uniform { timesteps },
            TimestepSampling::Stratified => Self::Stratified { timesteps, global_batch },
            TimestepSampling::LossSecondMoment => Self::LossSecondMoment(LossSecondMoment::new(timesteps)),
        }
    }

    /// The part of a draw that depends neither on past losses nor on the timesteps, so that it can be done ahead of time: a
    /// number in `[0, 1)` for each of these positions of the run, in their order.
    pub fn units(&self, seed: u64, positions: impl Iterator<Item = u64>) -> Vec<f64> {
        let draw = |position: u64| uniform(seed, Stream::Timestep, position);
        match self {
            Self::Uniform { .. } | Self::LossSecondMoment(_) => positions.map(draw).collect(),
            Self::Stratified { global_batch, .. } => {
                positions.map(|p| (stratum(seed, p, *global_batch) + draw(p)) / global_batch.get() as f64).collect()
            }
        }
    }

    /// The draws that follow from [`units`](Self::units).
    pub fn draws(&self, units: &[f64]) -> Vec<Draw> {
        match self {
            Self::Uniform { timesteps } | Self::Stratified { timesteps, .. } => {
                let even = |unit: &f64| Draw { t: below(unit * *timesteps as f64, *timesteps), weight: 1.0 };
                units.iter().map(even).collect()
            }
            Self::LossSecondMoment(history) => history.draw(units.iter().copied()),
        }
    }
}

/// The last losses of every timestep, and the importance sampling that follows from them (Nichol & Dhariwal 2021,
/// eq. 18).
///
/// It is the same on every rank when each step's (t, loss) pairs are gathered and applied in position order. It is part
/// of a checkpoint; losses are kept in `f32`, which every serde format carries exactly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossSecondMoment {
    history: Vec<VecDeque<f32>>,
}

impl LossSecondMoment {
    /// An empty history for T timesteps.
    pub fn new(timesteps: usize) -> Self {
        Self { history: vec![VecDeque::new(); timesteps] }
    }

    /// T.
    pub fn timesteps(&self) -> usize {
        self.history.len()
    }

    /// Whether every timestep has its full history. Until then t is uniform.
    pub fn warmed_up(&self) -> bool {
        self.history.iter().all(|losses| losses.len() == HISTORY)
    }

    /// Records one step's (t, loss) pairs in position order: the objective's own losses, before importance weighting.
    /// Losses that are not finite are left out, since one would stay in the history after its step.
    ///
    /// # Errors
    /// A t that the process does not have; nothing is recorded then.
    pub fn update(&mut self, losses: &[(usize, f32)]) -> Result<(), DiffusionError> {
        check_timesteps(losses, self.timesteps())?;
        for &(t, loss) in losses.iter().filter(|(_, loss)| loss.is_finite()) {
            let history = &mut self.history[t];
            if history.len() == HISTORY {
                history.pop_front();
            }
            history.push_back(loss);
        }
        Ok(())
    }

    /// A weight for each t, proportional to its probability: all 1 until warmed up, and then summing to 1.
    pub fn weights(&self) -> Vec<f64> {
        let root_mean_square = |losses: &VecDeque<f32>| {
            (losses.iter().map(|&loss| f64::from(loss).powi(2)).sum::<f64>() / HISTORY as f64).sqrt()
        };
        let roots: Vec<f64> = self.history.iter().map(root_mean_square).collect();
        let total: f64 = roots.iter().sum();
        if !self.warmed_up() || total == 0.0 {
            return vec![1.0; self.timesteps()];
        }
        let share = UNIFORM_SHARE / self.timesteps() as f64;
        roots.iter().map(|root| root / total * (1.0 - UNIFORM_SHARE) + share).collect()
    }

    /// Inverts the cumulative distribution at each of the uniform draws.
    fn draw(&self, units: impl Iterator<Item = f64>) -> Vec<Draw> {
        let weights = self.weights();
        let cumulative: Vec<f64> = weights
            .iter()
            .scan(0.0, |sum, weight| {
                *sum += weight;
                Some(*sum)
            })
            .collect();
        let total = cumulative.last().copied().unwrap_or(0.0);
        let draw = |unit: f64| {
            let t = cumulative.partition_point(|&sum| sum <= unit * total).min(self.timesteps().saturating_sub(1));
            Draw { t, weight: total / (self.timesteps() as f64 * weights[t]) }
        };
        units.map(draw).collect()
    }
}

/// Refuses pairs with a t that the process does not have.
pub(crate) fn check_timesteps(pairs: &[(usize, f32)], timesteps: usize) -> Result<(), DiffusionError> {
    match pairs.iter().find(|(t, _)| *t >= timesteps) {
        Some(&(t, _)) => Err(DiffusionError::TimestepOutOfRange { t, timesteps }),
        None => Ok(()),
    }
}

/// The stratum of a position: its slot in the global batch, shifted by an offset drawn anew each step, so that no slot
/// is tied to one part of the timesteps.
fn stratum(seed: u64, position: u64, global_batch: NonZeroU64) -> f64 {
    let (step, slot) = (position / global_batch, position % global_batch);
    let size = global_batch.get() as f64;
    let offset = (uniform(seed, Stream::StratumOffset, step) * size).floor();
    (slot as f64 + offset) % size
}

/// `value` rounded down, and kept below `timesteps`, which rounding may reach.
fn below(value: f64, timesteps: usize) -> usize {
    (value as usize).min(timesteps.saturating_sub(1))
}
