//! The choice between a run's raw weights and their averages, and the names of their buffers in checkpoints.

/// The name of the buffer with the raw weights.
pub const WEIGHTS: &str = "weights";

/// How the name of a buffer with an average begins.
pub(crate) const EMA_PREFIX: &str = "ema/";

/// The name of the buffer with the average of this rate.
pub fn ema_buffer(rate: f64) -> String {
    format!("{EMA_PREFIX}{rate}")
}

/// Which of a run's weights to use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WeightChoice {
    /// The slowest average, or the raw weights if there is none.
    SlowestAverage,
    /// The raw weights, which the optimizer updates.
    Raw,
    /// The average with this rate.
    Rate(f64),
}

impl std::str::FromStr for WeightChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ema" => Ok(Self::SlowestAverage),
            "raw" => Ok(Self::Raw),
            _ => text.parse().map(Self::Rate).map_err(|_| "give ema, raw or the rate of an average".into()),
        }
    }
}

impl WeightChoice {
    /// The name of the buffer with these weights, for a run that keeps averages with `rates`.
    pub(crate) fn buffer(self, rates: &[f64]) -> String {
        match self {
            Self::SlowestAverage => rates.iter().copied().max_by(f64::total_cmp).map_or(WEIGHTS.into(), ema_buffer),
            Self::Raw => WEIGHTS.into(),
            Self::Rate(rate) => ema_buffer(rate),
        }
    }
}
