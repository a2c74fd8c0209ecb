//! Noise schedules: beta_t for every timestep, in `f64`.

use std::f64::consts::FRAC_PI_2;

use crate::DiffusionError;

/// The offset that keeps the cosine schedule's first betas from vanishing (Nichol & Dhariwal 2021, section 3.2).
const COSINE_OFFSET: f64 = 0.008;
/// The cosine schedule's largest beta: avoids a singularity at the last timesteps (same section).
const COSINE_MAX_BETA: f64 = 0.999;
/// The sigmoid schedule runs over the logistic function on `[-6, 6]`.
const SIGMOID_REACH: f64 = 6.0;

/// How beta_t runs over the T timesteps, whatever T is.
///
/// Ends are beta at t = 0 and at t = T - 1, given for that T: only [`BetaSchedule::linear`] rescales them.
#[derive(Clone, Debug, PartialEq)]
pub enum BetaSchedule {
    /// Evenly spaced from `start` to `end` (Ho et al. 2020, section 4).
    ///
    /// `start = end / T` is the schedule that other texts write as alpha_t = sqrt(1 - end t / T) with 1-based t.
    Linear {
        /// beta at t = 0.
        start: f64,
        /// beta at t = T - 1.
        end: f64,
    },
    /// Evenly spaced in sqrt(beta); diffusers calls it `scaled_linear`.
    Quadratic {
        /// beta at t = 0.
        start: f64,
        /// beta at t = T - 1.
        end: f64,
    },
    /// abar(t) = cos²((t/T + 0.008)/1.008 · π/2), betas clipped at 0.999 (Nichol & Dhariwal 2021, eq. 17).
    Cosine,
    /// A logistic curve over `[-6, 6]` between the ends, which it approaches without reaching.
    Sigmoid {
        /// The lower asymptote, approached towards t = 0.
        start: f64,
        /// The upper asymptote, approached towards t = T - 1.
        end: f64,
    },
    /// The same beta at every timestep.
    Constant(f64),
    /// The betas themselves, one for each timestep.
    List(Vec<f64>),
}

impl BetaSchedule {
    /// Ho et al.'s 1e-4 to 0.02, both multiplied by 1000/T, so that abar_T is about the same for every T.
    pub fn linear(timesteps: usize) -> Self {
        let scale = 1000.0 / timesteps.max(1) as f64;
        Self::Linear { start: 1e-4 * scale, end: 0.02 * scale }
    }

    /// beta_t for t in `0..timesteps`.
    ///
    /// # Errors
    /// `timesteps` is 0, an explicit list has another length, or a beta is not strictly inside (0, 1).
    pub fn betas(&self, timesteps: usize) -> Result<Vec<f64>, DiffusionError> {
        if timesteps == 0 {
            return Err(DiffusionError::NoTimesteps);
        }
        let betas: Vec<f64> = match self {
            Self::Linear { start, end } => linspace(*start, *end, timesteps),
            Self::Quadratic { start, end } => {
                linspace(start.sqrt(), end.sqrt(), timesteps).into_iter().map(|root| root * root).collect()
            }
            Self::Cosine => cosine(timesteps),
            Self::Sigmoid { start, end } => linspace(-SIGMOID_REACH, SIGMOID_REACH, timesteps)
                .into_iter()
                .map(|x| start + (end - start) / (1.0 + (-x).exp()))
                .collect(),
            Self::Constant(beta) => vec![*beta; timesteps],
            Self::List(betas) => betas.clone(),
        };
        if betas.len() != timesteps {
            return Err(DiffusionError::ScheduleLength { expected: timesteps, found: betas.len() });
        }
        validate(&betas)?;
        Ok(betas)
    }
}

/// Refuses betas that are not strictly inside (0, 1), naming the first.
pub(crate) fn validate(betas: &[f64]) -> Result<(), DiffusionError> {
    match betas.iter().position(|&beta| !(beta > 0.0 && beta < 1.0)) {
        Some(index) => Err(DiffusionError::BetaOutOfRange { index, value: betas[index] }),
        None => Ok(()),
    }
}

/// `count` evenly spaced values with both ends exact; just `start` where `count` is 1.
pub(crate) fn linspace(start: f64, end: f64, count: usize) -> Vec<f64> {
    let step = (end - start) / (count.max(2) - 1) as f64;
    let mut values: Vec<f64> = (0..count).map(|i| i as f64 * step + start).collect();
    if let [_, .., last] = values.as_mut_slice() {
        *last = end;
    }
    values
}

fn cosine(timesteps: usize) -> Vec<f64> {
    let abar = |t: f64| ((t / timesteps as f64 + COSINE_OFFSET) / (1.0 + COSINE_OFFSET) * FRAC_PI_2).cos().powi(2);
    (0..timesteps).map(|t| (1.0 - abar((t + 1) as f64) / abar(t as f64)).min(COSINE_MAX_BETA)).collect()
}
