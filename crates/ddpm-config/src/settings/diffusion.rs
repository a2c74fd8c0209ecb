//! `[diffusion]`.

use serde::{Deserialize, Serialize};

use super::zero_is_none;

/// `[diffusion]`: the process and its objective. Timesteps are 0-based; t = 0 has the least noise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiffusionSettings {
    /// Number of noise levels T. Default 1000.
    pub timesteps: u32,
    /// Shape of the noise schedule. Default `linear`.
    pub schedule: Schedule,
    /// First beta of `linear`, `quadratic` and `sigmoid`; absent or 0: see [`DiffusionSettings::beta_range`].
    #[serde(deserialize_with = "zero_is_none")]
    pub beta_start: Option<f64>,
    /// Last beta of the same, and of `constant`; absent or 0: see [`DiffusionSettings::beta_range`].
    #[serde(deserialize_with = "zero_is_none")]
    pub beta_end: Option<f64>,
    /// The betas themselves, T of them, for `schedule = "list"`. Default empty.
    pub betas: Vec<f64>,
    /// What the network predicts. Default `eps`.
    pub predict: Predict,
    /// Variance of the reverse process. Default `fixed_small`.
    pub variance: Variance,
    /// Objective. Default `simple`.
    pub loss: Loss,
    /// Weight of the bound in `hybrid`: mse + lambda * T * vb (Nichol & Dhariwal 2021, eq. 16). Default 0.001.
    pub lambda: f64,
    /// Weight of each timestep in the objective. Default `none`.
    pub weighting: Weighting,
    /// Ceiling gamma of the signal-to-noise ratio in `weighting = "min_snr"`. Default 5.
    pub min_snr_gamma: f64,
    /// Exponent gamma of `weighting = "p2"`. Default 1.
    pub p2_gamma: f64,
    /// Offset k of the signal-to-noise ratio in `weighting = "p2"`. Default 1.
    pub p2_k: f64,
    /// How training timesteps are drawn. Default `uniform`.
    pub timestep_sampler: TimestepSampler,
    /// Share of labels replaced by "no class", for classifier-free guidance. Default 0.
    pub label_dropout: f64,
}

impl Default for DiffusionSettings {
    fn default() -> Self {
        Self {
            timesteps: 1000,
            schedule: Schedule::Linear,
            beta_start: None,
            beta_end: None,
            betas: Vec::new(),
            predict: Predict::Eps,
            variance: Variance::FixedSmall,
            loss: Loss::Simple,
            lambda: 0.001,
            weighting: Weighting::None,
            min_snr_gamma: 5.0,
            p2_gamma: 1.0,
            p2_k: 1.0,
            timestep_sampler: TimestepSampler::Uniform,
            label_dropout: 0.0,
        }
    }
}

impl DiffusionSettings {
    /// First and last beta of the schedules that take them.
    ///
    /// Given values are taken as they are. The defaults are Ho et al.'s 1e-4 and 0.02, multiplied by 1000/T for
    /// `linear` and `quadratic` so that fewer steps add as much noise.
    pub fn beta_range(&self) -> (f64, f64) {
        let scale = match self.schedule {
            Schedule::Linear | Schedule::Quadratic => 1000.0 / f64::from(self.timesteps),
            _ => 1.0,
        };
        (self.beta_start.unwrap_or(1e-4 * scale), self.beta_end.unwrap_or(0.02 * scale))
    }
}

/// Shape of the noise schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// beta linear from `beta_start` to `beta_end` (Ho et al. 2020).
    Linear,
    /// sqrt(beta) linear from sqrt(`beta_start`) to sqrt(`beta_end`).
    Quadratic,
    /// abar(t) a squared cosine (Nichol & Dhariwal 2021, eq. 17); takes no betas.
    Cosine,
    /// beta along a logistic curve from `beta_start` to `beta_end`.
    Sigmoid,
    /// beta = `beta_end` at every t.
    Constant,
    /// The values of `betas`.
    List,
}

/// What the network predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Predict {
    /// The noise.
    Eps,
    /// The clean image.
    XStart,
    /// v = sqrt(abar) eps - sqrt(1 - abar) x_0.
    V,
}

/// Variance of the reverse process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variance {
    /// The posterior's.
    FixedSmall,
    /// beta.
    FixedLarge,
    /// Learned, between the two (Nichol & Dhariwal 2021, eq. 15).
    LearnedRange,
}

/// Objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Mean squared error of the prediction (Ho et al. 2020, eq. 14).
    Simple,
    /// The variational bound, T * vb in bits per dimension. `kl` is read as the same.
    #[serde(alias = "kl")]
    Vlb,
    /// mse + lambda * T * vb (Nichol & Dhariwal 2021, eq. 16).
    Hybrid,
}

/// Weight of each timestep in the objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weighting {
    /// All alike.
    None,
    /// By the signal-to-noise ratio, capped at `min_snr_gamma` (Hang et al. 2023).
    MinSnr,
    /// By 1/(`p2_k` + signal-to-noise ratio)^`p2_gamma` (Choi et al. 2022).
    P2,
}

/// How training timesteps are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSampler {
    /// Uniform and independent.
    Uniform,
    /// Uniform, one draw in each of `global_batch` equal parts.
    Stratified,
    /// Proportional to the root mean square of recent losses (Nichol & Dhariwal 2021, eq. 18).
    LossSecondMoment,
}
