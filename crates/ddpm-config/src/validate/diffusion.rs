//! `[diffusion]`: a noise schedule inside (0, 1), and an objective that trains what the network gives.

use super::check::{in_range, inside_unit, positive_finite, require};
use crate::{DiffusionSettings, Error, Loss, Schedule, Variance};

impl DiffusionSettings {
    pub(super) fn validate(&self) -> Result<(), Error> {
        let timesteps = self.timesteps;
        in_range("diffusion.timesteps", timesteps, (2..=1_000_000).contains(&timesteps), "from 2 to 1000000")?;
        self.validate_betas()?;
        in_range("diffusion.lambda", self.lambda, positive_finite(self.lambda), "above 0")?;
        in_range("diffusion.min_snr_gamma", self.min_snr_gamma, positive_finite(self.min_snr_gamma), "above 0")?;
        let p2 = self.p2_gamma;
        in_range("diffusion.p2_gamma", p2, p2 >= 0.0 && p2.is_finite(), "0 or above")?;
        in_range("diffusion.p2_k", self.p2_k, positive_finite(self.p2_k), "above 0")?;
        let share = self.label_dropout;
        in_range("diffusion.label_dropout", share, (0.0..1.0).contains(&share), "at least 0 and below 1")?;
        let learned = self.variance == Variance::LearnedRange;
        require(
            learned || self.loss != Loss::Hybrid,
            "diffusion.loss",
            || "diffusion.loss = \"hybrid\" trains the variance, which diffusion.variance fixes".into(),
            || "Set diffusion.variance = \"learned_range\", or diffusion.loss = \"simple\"".into(),
        )?;
        require(
            !learned || self.loss != Loss::Simple,
            "diffusion.variance",
            || "diffusion.variance = \"learned_range\" is not trained by diffusion.loss = \"simple\"".into(),
            || "Set diffusion.loss = \"hybrid\", or a fixed diffusion.variance".into(),
        )
    }

    fn validate_betas(&self) -> Result<(), Error> {
        let uses_start = matches!(self.schedule, Schedule::Linear | Schedule::Quadratic | Schedule::Sigmoid);
        let uses_end = uses_start || self.schedule == Schedule::Constant;
        for (key, set, used) in [
            ("diffusion.beta_start", self.beta_start.is_some(), uses_start),
            ("diffusion.beta_end", self.beta_end.is_some(), uses_end),
            ("diffusion.betas", !self.betas.is_empty(), self.schedule == Schedule::List),
        ] {
            let unset = if key == "diffusion.betas" { "[]" } else { "0" };
            require(
                !set || used,
                key,
                || format!("{key} is set, but this diffusion.schedule does not use it"),
                || format!("Remove it (or set it to {unset}), or choose another diffusion.schedule"),
            )?;
        }
        if self.schedule == Schedule::List {
            let (given, needed) = (self.betas.len(), self.timesteps as usize);
            require(
                given == needed,
                "diffusion.betas",
                || format!("diffusion.betas has {given} entries for diffusion.timesteps = {needed}"),
                || format!("Give {needed} betas, or set diffusion.timesteps to {given}"),
            )?;
        }
        for &beta in &self.betas {
            in_range("diffusion.betas", beta, inside_unit(beta), "above 0 and below 1")?;
        }
        if !uses_end {
            return Ok(());
        }
        let (start, end) = self.beta_range();
        require(
            inside_unit(end),
            "diffusion.beta_end",
            || match self.beta_end {
                Some(end) => format!("diffusion.beta_end = {end} is out of range"),
                None => format!("the default diffusion.beta_end for {} timesteps would be {end}", self.timesteps),
            },
            || "Give diffusion.beta_end a value above 0 and below 1".into(),
        )?;
        let limit = format!("above 0 and at most diffusion.beta_end = {end}");
        in_range("diffusion.beta_start", start, !uses_start || (start > 0.0 && start <= end), limit)
    }
}
