//! The choice between a run's raw weights and their averages, and the names of their buffers in checkpoints.

use ddpm_config::EmaSettings;
use ddpm_nn::Averaging;

/// The name of the buffer with the raw weights.
pub const WEIGHTS: &str = "weights";

/// How the name of a buffer with an average begins.
pub const EMA_PREFIX: &str = "ema/";

/// How it begins if the average is a power function of time.
const WIDTH_PREFIX: &str = "ema/width-";

/// The averages that a run keeps.
pub fn averagings(settings: &EmaSettings) -> impl Iterator<Item = Averaging> {
    let exponential = |rate: &f64| Averaging::Exponential { rate: *rate, warmup: settings.warmup };
    let power = |width: &f64| Averaging::Power { width: *width };
    settings.rates.iter().map(exponential).chain(settings.widths.iter().map(power))
}

/// The name of the buffer with an average.
pub fn average_buffer(averaging: Averaging) -> String {
    match averaging {
        Averaging::Exponential { rate, .. } => format!("{EMA_PREFIX}{rate}"),
        Averaging::Power { width } => format!("{WIDTH_PREFIX}{width}"),
    }
}

/// The width of the average in a buffer, if it is a power function of time.
pub fn width_in(buffer: &str) -> Option<f64> {
    buffer.strip_prefix(WIDTH_PREFIX)?.parse().ok()
}

/// The slowest of these averages: that with the highest rate, or without any rate the widest.
pub fn slowest<T>(averages: impl IntoIterator<Item = T>, averaging: impl Fn(&T) -> Averaging) -> Option<T> {
    let slowness = |average: &T| match averaging(average) {
        Averaging::Power { width } => width - 1.0,
        Averaging::Exponential { rate, .. } => rate,
    };
    averages.into_iter().max_by(|a, b| slowness(a).total_cmp(&slowness(b)))
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
    /// The power-function average of this width, stored or reconstructed.
    Width(f64),
}

impl std::str::FromStr for WeightChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
        let chosen = match (text, text.strip_prefix("width=")) {
            ("ema", _) => Some(Self::SlowestAverage),
            ("raw", _) => Some(Self::Raw),
            (_, Some(width)) => number(width).map(Self::Width),
            _ => number(text).map(Self::Rate),
        };
        chosen.ok_or_else(|| "give ema, raw, the rate of an average, or a width such as width=0.1".into())
    }
}

impl WeightChoice {
    /// The name of the buffer with these weights, for a run that keeps these averages.
    pub(crate) fn buffer(self, settings: &EmaSettings) -> String {
        match self {
            Self::SlowestAverage => {
                slowest(averagings(settings), |averaging| *averaging).map_or(WEIGHTS.into(), average_buffer)
            }
            Self::Raw => WEIGHTS.into(),
            Self::Rate(rate) => average_buffer(Averaging::Exponential { rate, warmup: settings.warmup }),
            Self::Width(width) => average_buffer(Averaging::Power { width }),
        }
    }
}
