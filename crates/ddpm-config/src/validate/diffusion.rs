//! `[diffusion]`: the noise schedule and the objective, including the parameters of those that are not chosen.

use ddpm_spec::check::{in_range, require};
use ddpm_spec::{LossKind, ScheduleKind, SpecError, Variance, WeightingKind};

use super::paths::DIFFUSION;
use crate::DiffusionSettings;

impl DiffusionSettings {
    pub(super) fn validate(&self) -> Result<(), SpecError> {
        let timesteps = self.timesteps;
        in_range("diffusion.timesteps", timesteps, (2..=1_000_000).contains(&timesteps), "from 2 to 1000000")?;
        self.validate_betas()?;
        // Parameters of what is not chosen must be valid too: all settings are written as JSON, which has no NaN.
        self.loss_of(LossKind::Hybrid).validate(Variance::LearnedRange, DIFFUSION)?;
        for kind in [WeightingKind::MinSnr, WeightingKind::P2] {
            self.weighting_of(kind).validate(DIFFUSION)?;
        }
        let share = self.label_dropout;
        in_range("diffusion.label_dropout", share, (0.0..1.0).contains(&share), "at least 0 and below 1")?;
        if self.zero_terminal_snr {
            self.spec().validate_zero_terminal_snr(DIFFUSION)?;
        }
        self.spec().validate(DIFFUSION)
    }

    fn validate_betas(&self) -> Result<(), SpecError> {
        let uses_start =
            matches!(self.schedule, ScheduleKind::Linear | ScheduleKind::Quadratic | ScheduleKind::Sigmoid);
        let uses_end = uses_start || self.schedule == ScheduleKind::Constant;
        for (key, set, used) in [
            ("diffusion.beta_start", self.beta_start.is_some(), uses_start),
            ("diffusion.beta_end", self.beta_end.is_some(), uses_end),
            ("diffusion.betas", !self.betas.is_empty(), self.schedule == ScheduleKind::List),
        ] {
            let unset = if key == "diffusion.betas" { "[]" } else { "0" };
            require(
                !set || used,
                key,
                || format!("{key} is set, but this diffusion.schedule does not use it"),
                || format!("Remove it (or set it to {unset}), or choose another diffusion.schedule"),
            )?;
        }
        self.beta_schedule().validate(self.timesteps as usize, DIFFUSION).map_err(|error| {
            match (error.path.as_str(), self.beta_end) {
                // The invalid number is a default, so it is not in the file.
                ("diffusion.beta_end", None) => {
                    let (timesteps, end) = (self.timesteps, self.beta_range().1);
                    let problem = format!("the default diffusion.beta_end for {timesteps} timesteps would be {end}");
                    SpecError { problem, ..error }
                }
                _ => error,
            }
        })
    }
}
