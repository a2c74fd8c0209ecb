//! What the network predicts.

use serde::{Deserialize, Serialize};

/// What the network's first C output channels are, for images of C channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise in x_t (Ho et al. 2020). The score of x_t is -eps / sqrt(1 - abar_t).
    Eps,
    /// x_0 itself.
    XStart,
    /// v = sqrt(abar) eps - sqrt(1 - abar) x_0 (Salimans & Ho 2022).
    V,
}
