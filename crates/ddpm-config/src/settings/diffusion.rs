//! `[diffusion]`.

use ddpm_spec::{LossKind, Prediction, ScheduleKind, TimestepSampling, Variance, WeightingKind};
use serde::{Deserialize, Serialize};

use super::optional::zero_is_none;

/// `[diffusion]`: the process and its objective. Timesteps are 0-based; t = 0 has the least noise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiffusionSettings {
    /// Number of noise levels T. Default 1000.
    pub timesteps: u32,
    /// Shape of the noise schedule. Default `linear`.
    pub schedule: ScheduleKind,
    /// First beta of `linear`, `quadratic` and `sigmoid`; absent or 0: see [`DiffusionSettings::beta_range`].
    #[serde(deserialize_with = "zero_is_none")]
    pub beta_start: Option<f64>,
    /// Last beta of the same schedules, and of `constant`; absent or 0: see [`DiffusionSettings::beta_range`].
    #[serde(deserialize_with = "zero_is_none")]
    pub beta_end: Option<f64>,
    /// The betas themselves, T of them, for `schedule = "list"`. Default empty.
    pub betas: Vec<f64>,
    /// Whether the schedule is rescaled so that nothing of the image is left at the last timestep (Lin et al. 2023,
    /// algorithm 1); not with `predict = "eps"` or a `weighting`. Default false.
    pub zero_terminal_snr: bool,
    /// What the network predicts. Default `eps`.
    pub predict: Prediction,
    /// Variance of the reverse process. Default `fixed_small`.
    pub variance: Variance,
    /// Objective. Default `simple`.
    pub loss: LossKind,
    /// Weight of the bound in `hybrid`: mse + lambda * T * vb (Nichol & Dhariwal 2021, eq. 16). Default 0.001.
    pub lambda: f64,
    /// Weight of each timestep in the objective. Default `none`.
    pub weighting: WeightingKind,
    /// Ceiling gamma of the signal-to-noise ratio in `weighting = "min_snr"`. Default 5.
    pub min_snr_gamma: f64,
    /// Exponent gamma of `weighting = "p2"`. Default 1.
    pub p2_gamma: f64,
    /// Offset k of the signal-to-noise ratio in `weighting = "p2"`. Default 1.
    pub p2_k: f64,
    /// How training timesteps are drawn. Default `uniform`.
    pub timestep_sampler: TimestepSampling,
    /// Share of labels replaced by "no class", for classifier-free guidance. Default 0.
    pub label_dropout: f64,
}

impl Default for DiffusionSettings {
    fn default() -> Self {
        Self {
            timesteps: 1000,
            schedule: ScheduleKind::Linear,
            beta_start: None,
            beta_end: None,
            betas: Vec::new(),
            zero_terminal_snr: false,
            predict: Prediction::Eps,
            variance: Variance::FixedSmall,
            loss: LossKind::Simple,
            lambda: 0.001,
            weighting: WeightingKind::None,
            min_snr_gamma: 5.0,
            p2_gamma: 1.0,
            p2_k: 1.0,
            timestep_sampler: TimestepSampling::Uniform,
            label_dropout: 0.0,
        }
    }
}

impl DiffusionSettings {
    /// First and last beta of the schedules that use them: the given values, else the schedule's defaults
    /// ([`ScheduleKind::default_ends`]).
    pub fn beta_range(&self) -> (f64, f64) {
        let (start, end) = self.schedule.default_ends(self.timesteps as usize);
        (self.beta_start.unwrap_or(start), self.beta_end.unwrap_or(end))
    }
}
