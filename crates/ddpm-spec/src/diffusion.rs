//! What a network predicts and is trained for.

use crate::check::require;
use crate::error::{Naming, SpecError};
use crate::loss::Loss;
use crate::prediction::Prediction;
use crate::variance::Variance;
use crate::weighting::Weighting;

/// What the network predicts and what it is trained for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DiffusionSpec {
    /// What the first C output channels are.
    pub prediction: Prediction,
    /// Where the reverse step's variance comes from.
    pub variance: Variance,
    /// The training objective.
    pub loss: Loss,
    /// A weight on the objective's squared error for each timestep.
    pub weighting: Weighting,
}

impl DiffusionSpec {
    /// Checks the parts and that they go together.
    ///
    /// # Errors
    /// [`SpecError`]: a parameter out of range, a learned variance that the loss does not train, a fixed one that it
    /// does, or weights on the bound.
    pub fn validate(&self, naming: Naming) -> Result<(), SpecError> {
        self.loss.validate(self.variance, naming)?;
        let (loss, weighting) = (naming.path("loss"), naming.path("weighting"));
        require(
            self.loss != Loss::Vlb || self.weighting == Weighting::None,
            &weighting,
            || format!("{loss} = \"vlb\" is a bound and takes no {weighting} over timesteps"),
            || format!("Set {weighting} = \"none\", or choose another {loss}"),
        )?;
        self.weighting.validate(naming)
    }

    /// Checks that the network can be trained and sampled from where x_t is pure noise, as at the last timestep of
    /// [`BetaSchedule::ZeroTerminalSnr`](crate::BetaSchedule::ZeroTerminalSnr).
    ///
    /// # Errors
    /// [`SpecError`]: a prediction of eps, which says nothing about x_0 there, or weights, which all are 0 there.
    pub fn validate_zero_terminal_snr(&self, naming: Naming) -> Result<(), SpecError> {
        let (predict, weighting) = (naming.path("predict"), naming.path("weighting"));
        require(
            self.prediction != Prediction::Eps,
            &predict,
            || {
                format!(
                    "{predict} = \"eps\" does not work with {}: x_T is pure noise then, and its eps says nothing about \
                     the image",
                    naming.path("zero_terminal_snr")
                )
            },
            || format!("Set {predict} = \"v\" (or \"x_start\"), or leave {} out", naming.path("zero_terminal_snr")),
        )?;
        require(
            self.weighting == Weighting::None,
            &weighting,
            || {
                format!(
                    "with {} every {weighting} is 0 at the last timestep, where sampling starts and the network would \
                     stay untrained",
                    naming.path("zero_terminal_snr")
                )
            },
            || format!("Set {weighting} = \"none\", or leave {} out", naming.path("zero_terminal_snr")),
        )
    }
}
