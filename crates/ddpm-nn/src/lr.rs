//! Learning-rate schedules.

/// A learning rate as a function of the step: linear warm-up, then constant or a cosine to zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LrSchedule {
    /// The rate after warm-up.
    pub peak: f64,
    /// Steps over which it grows linearly from `peak / warmup_steps` to `peak`; 0 starts at the peak.
    pub warmup_steps: u64,
    /// Where a half cosine after warm-up reaches zero; `None` keeps the peak.
    pub cosine_until: Option<u64>,
}

impl LrSchedule {
    /// The rate for the optimizer step that turns step `step` into `step + 1` (0-based).
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let Some(end) = self.cosine_until else { return self.peak };
        let span = end.saturating_sub(self.warmup_steps).max(1) as f64;
        let done = ((step - self.warmup_steps) as f64 / span).min(1.0);
        self.peak * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_then_falls_to_zero() {
        let lr = LrSchedule { peak: 2.0, warmup_steps: 4, cosine_until: Some(104) };
        assert_eq!([0, 1, 3, 4].map(|step| lr.at(step)), [0.5, 1.0, 2.0, 2.0]);
        assert!((lr.at(54) - 1.0).abs() < 1e-12);
        assert!(lr.at(104) < 1e-12 && lr.at(1000) < 1e-12);
        assert_eq!(LrSchedule { cosine_until: None, ..lr }.at(1000), 2.0);
    }
}
