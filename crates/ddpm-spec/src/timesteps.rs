//! How training timesteps are drawn.

use serde::{Deserialize, Serialize};

/// How the timestep of each training sample is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSampling {
    /// Uniform and independent.
    Uniform,
    /// Uniform, one draw in each of `global_batch` equal parts, which makes the batch's mean loss less noisy.
    Stratified,
    /// Proportional to the root mean square of recent losses (Nichol & Dhariwal 2021, eq. 18).
    LossSecondMoment,
}
