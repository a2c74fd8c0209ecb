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
}
