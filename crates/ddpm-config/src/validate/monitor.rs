//! `[monitor]`: intervals that fit each other, and evaluations that the kind of model allows.

use ddpm_spec::check::{in_range, nearest_multiples, positive, require};
use ddpm_spec::{Features, ModelKind, SpecError};

use super::texts::spelt;
use crate::Settings;
use crate::address::check_path;

impl Settings {
    pub(super) fn validate_monitor(&self) -> Result<(), SpecError> {
        let (monitor, all) = (&self.monitor, self.diffusion.timesteps);
        positive("monitor.log_every", monitor.log_every)?;
        positive("monitor.sample_count", monitor.sample_count as u64)?;
        if let Some(peak) = monitor.peak_tflops {
            in_range("monitor.peak_tflops", peak, peak > 0.0 && peak.is_finite(), "above 0")?;
        }
        let wanted = format!("from 1 to diffusion.timesteps = {all}");
        let steps = monitor.sample_steps;
        in_range("monitor.sample_steps", steps, (1..=all).contains(&steps), &wanted)?;

        positive("monitor.eval_count", monitor.eval_count)?;
        let steps = monitor.eval_timesteps;
        let wanted = format!("from 2 to diffusion.timesteps = {all}");
        in_range("monitor.eval_timesteps", steps, (2..=all).contains(&steps), wanted)?;
        in_range("monitor.fid_count", monitor.fid_count, monitor.fid_count >= 2, "at least 2")?;
        if let Features::File(path) = &monitor.fid_features {
            spelt("monitor.fid_features", path, check_path)?;
        }
        if let Some(path) = &monitor.fid_reference {
            spelt("monitor.fid_reference", path, check_path)?;
        }
        for (key, every) in [("monitor.eval_every", monitor.eval_every), ("monitor.fid_every", monitor.fid_every)] {
            self.validate_evaluation(key, every)?;
        }
        Ok(())
    }

    /// Checks the interval of an evaluation, whose results are part of a line of metrics.
    fn validate_evaluation(&self, key: &str, every: u64) -> Result<(), SpecError> {
        let log = self.monitor.log_every;
        require(
            every == 0 || self.model.kind != ModelKind::Classifier,
            key,
            || format!("{key} is set, but a classifier has no bound and draws no samples"),
            || format!("Set {key} to 0"),
        )?;
        require(
            every.is_multiple_of(log),
            key,
            || format!("{key} = {every} is not a multiple of monitor.log_every = {log}"),
            || format!("Use {}, or change monitor.log_every", nearest_multiples(every, log)),
        )
    }
}
