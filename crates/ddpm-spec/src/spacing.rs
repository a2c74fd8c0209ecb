//! Which of the timesteps a sampler keeps.

use serde::{Deserialize, Serialize};

/// How N timesteps are spread over T. Where N divides T these are the timesteps of diffusers' schedulers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    /// Multiples of the fraction T/N, each rounded down: t = 0 is kept, the noisiest timesteps are not.
    Leading,
    /// Evenly spaced with both ends kept; a single timestep is the noisiest.
    Linspace,
    /// Steps of T/N down from T - 1: the noisiest timestep is kept, t = 0 is not.
    Trailing,
}
