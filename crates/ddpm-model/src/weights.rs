//! Which weights of a run: the trained ones, or an average of them; and the names of their buffers in checkpoints.

/// The buffer of the trained weights.
pub const WEIGHTS: &str = "weights";

/// The buffer of the average with this rate.
pub fn ema_buffer(rate: f64) -> String {
    format!("ema/{rate}")
}

/// Which of a run's weights to use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WeightChoice {
    /// The slowest average, or the raw weights where there is none.
    SlowestAverage,
    /// What the optimizer works on.
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
    /// The buffer that holds these weights, where averages with `rates` are kept.
    pub(crate) fn buffer(self, rates: &[f64]) -> String {
        match self {
            Self::SlowestAverage => rates.iter().copied().max_by(f64::total_cmp).map_or(WEIGHTS.into(), ema_buffer),
            Self::Raw => WEIGHTS.into(),
            Self::Rate(rate) => ema_buffer(rate),
        }
    }
}
