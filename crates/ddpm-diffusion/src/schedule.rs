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
/// `timesteps` is 0 (or 1, to be rescaled), an explicit list has another length, or a beta is not strictly inside (0, 1).
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
        BetaSchedule::ZeroTerminalSnr(schedule) => zero_terminal_snr(&betas(schedule, timesteps)?),
    })
}

/// Refuses betas that are not strictly inside (0, 1), naming the first; the last may be 1.
pub(crate) fn validate(betas: &[f64]) -> Result<(), DiffusionError> {
    let last = betas.len().saturating_sub(1);
    match (0..betas.len()).find(|&t| !(betas[t] > 0.0 && (betas[t] < 1.0 || betas[t] == 1.0 && t == last))) {
        Some(index) => Err(DiffusionError::BetaOutOfRange { index, value: betas[index] }),
        None => Ok(()),
    }
}

/// alphas_cumprod: the products of 1 - beta.
pub(crate) fn alphas_cumprod(betas: &[f64]) -> Vec<f64> {
    betas
        .iter()
        .scan(1.0, |product, beta| {
            *product *= 1.0 - beta;
            Some(*product)
        })
        .collect()
}

/// `betas` with sqrt(abar) shifted to end at 0 and scaled to begin where it did (Lin et al. 2023, algorithm 1).
fn zero_terminal_snr(betas: &[f64]) -> Vec<f64> {
    let roots: Vec<f64> = alphas_cumprod(betas).iter().map(|abar| abar.sqrt()).collect();
    let (first, last) = (roots[0], roots[roots.len() - 1]);
    let rescaled = roots.iter().map(|root| ((root - last) * first / (first - last)).powi(2));
    rescaled
        .scan(1.0, |previous, abar| {
            let beta = 1.0 - abar / *previous;
            *previous = abar;
            Some(beta)
        })
        .collect()
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
