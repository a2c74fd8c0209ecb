//! Variance of the reverse process.

use serde::{Deserialize, Serialize};

/// Where the variance of p(x_{t-1} | x_t) comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variance {
    /// The posterior's variance, exact for a single data point.
    FixedSmall,
    /// beta_t, exact for standard normal data; at t = 0 the posterior's variance at t = 1.
    FixedLarge,
    /// C further channels v interpolate between the two in log space, at (v + 1)/2 of the way from small to large
    /// (Nichol & Dhariwal 2021, eq. 15).
    LearnedRange,
}

impl Variance {
    /// How many channels the network must return for images of `channels`.
    pub fn model_channels(self, channels: i64) -> i64 {
        match self {
            Self::FixedSmall | Self::FixedLarge => channels,
            Self::LearnedRange => 2 * channels,
        }
    }
}
