//! Noise schedules: beta_t for every timestep, in `f64`.

use std::f64::consts::FRAC_PI_2;

use ddpm_spec::{BetaSchedule, Naming};

use crate::DiffusionError;

/// The offset that keeps the cosine schedule's first betas from vanishing (Nichol & Dhariwal 2021, section 3.2).
const COSINE_OFFSET: f64 = 0.008;
/// The cosine schedule's largest beta: avoids a singularity at the last timesteps (same section).
const COSINE_MAX_BETA: f64 = 0.999;
/// The sigmoid schedule runs over the logistic function on `[-6, 6]`.
const SIGMOID_REACH: f64 = 6.0;

/// beta_t for t in `0..timesteps`.
///
/// # Errors
/// `timesteps` is 0, an explicit list has another length, or a beta is not strictly inside (0, 1).
pub fn betas(schedule: &BetaSchedule, timesteps: usize) -> Result<Vec<f64>, DiffusionError> {
    schedule.validate(timesteps, Naming::PLAIN)?;
    Ok(match schedule {
        BetaSchedule::Linear { start, end } => linspace(*start, *end, timesteps),
        BetaSchedule::Quadratic { start, end } => {
            linspace(start.sqrt(), end.sqrt(), timesteps).into_iter().map(|root| root * root).collect()
        }
        BetaSchedule::Cosine => cosine(timesteps),
        BetaSchedule::Sigmoid { start, end } => linspace(-SIGMOID_REACH, SIGMOID_REACH, timesteps)
            .into_iter()
            .map(|x| start + (end - start) / (1.0 + (-x).exp()))
            .collect(),
        BetaSchedule::Constant(beta) => vec![*beta; timesteps],
        BetaSchedule::List(betas) => betas.clone(),
    })
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
