//! Weights of the timesteps in the objective.

use serde::{Deserialize, Serialize};

use crate::check::{in_range, positive_finite};
use crate::error::{Naming, SpecError};

/// The name of a [`Weighting`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightingKind {
    /// [`Weighting::None`].
    None,
    /// [`Weighting::MinSnr`].
    MinSnr,
    /// [`Weighting::P2`].
    P2,
}

/// A weight for each timestep on the squared error. The bound carries its own weights and takes none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Weighting {
    /// 1 at every t.
    None,
    /// min(SNR, gamma) in terms of the error of x_0, whatever is predicted, with SNR = abar/(1 - abar) (Hang et al.
    /// 2023); gamma is commonly 5.
    MinSnr {
        /// Where the weight stops growing.
        gamma: f64,
    },
    /// 1/(k + SNR)^gamma in terms of the error of eps, whatever is predicted: less on the faint noise of small t, where
    /// there is little to learn but detail (Choi et al. 2022, eq. 8). k and gamma are commonly 1.
    P2 {
        /// How fast the weight falls; 0 is the simple loss of eps.
        gamma: f64,
        /// Keeps the weight of pure noise finite.
        k: f64,
    },
}

impl Weighting {
    /// Checks the parameters, fields `min_snr_gamma`, `p2_gamma` and `p2_k`.
    ///
    /// # Errors
    /// [`SpecError`].
    pub fn validate(self, naming: Naming) -> Result<(), SpecError> {
        match self {
            Self::None => Ok(()),
            Self::MinSnr { gamma } => in_range(&naming.path("min_snr_gamma"), gamma, positive_finite(gamma), "above 0"),
            Self::P2 { gamma, k } => {
                in_range(&naming.path("p2_gamma"), gamma, gamma >= 0.0 && gamma.is_finite(), "0 or above")?;
                in_range(&naming.path("p2_k"), k, positive_finite(k), "above 0")
            }
        }
    }
}
