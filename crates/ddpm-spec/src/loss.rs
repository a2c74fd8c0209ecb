//! The training objective.

use serde::{Deserialize, Serialize};

use crate::check::{in_range, positive_finite, require};
use crate::error::{Naming, SpecError};
use crate::variance::Variance;

/// The name of a [`Loss`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// [`Loss::Simple`].
    Simple,
    /// [`Loss::Vlb`]. `kl` is read as the same.
    #[serde(alias = "kl")]
    Vlb,
    /// [`Loss::Hybrid`].
    Hybrid,
}

/// What is minimised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// Mean squared error of the prediction (L_simple; Ho et al. 2020, eq. 14). Trains no variance.
    Simple,
    /// T times the bound's term at t, in bits per dimension (L_vlb): its mean over uniform t estimates the whole bound
    /// without the prior term. Known as `rescaled_kl`.
    Vlb,
    /// Mean squared error + lambda · T · vb, the mean held fixed inside vb (L_hybrid; Nichol & Dhariwal 2021, eq. 16).
    ///
    /// lambda multiplies the bound's sum over t, so its share does not change with T: lambda = 0.001 adds vb T/1000,
    /// which is `rescaled_mse`, and lambda = 1/T adds vb itself.
    Hybrid {
        /// The weight of the bound, in squared error per bit per dimension.
        lambda: f64,
    },
}

impl Loss {
    /// Checks the parameters, fields `loss` and `lambda`, and that the loss trains the variance if and only if that is
    /// learned.
    ///
    /// # Errors
    /// [`SpecError`].
    pub fn validate(self, variance: Variance, naming: Naming) -> Result<(), SpecError> {
        let (loss, of_variance) = (naming.path("loss"), naming.path("variance"));
        let learned = variance == Variance::LearnedRange;
        match self {
            Self::Simple => require(
                !learned,
                &of_variance,
                || format!("{of_variance} = \"learned_range\" is not trained by {loss} = \"simple\""),
                || format!("Set {loss} = \"hybrid\", or a fixed {of_variance}"),
            ),
            Self::Vlb => Ok(()),
            Self::Hybrid { lambda } => {
                in_range(&naming.path("lambda"), lambda, positive_finite(lambda), "above 0")?;
                require(
                    learned,
                    &loss,
                    || format!("{loss} = \"hybrid\" trains the variance, which {of_variance} fixes"),
                    || format!("Set {of_variance} = \"learned_range\", or {loss} = \"simple\""),
                )
            }
        }
    }
}
