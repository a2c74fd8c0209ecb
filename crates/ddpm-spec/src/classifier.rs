//! A classifier of noised images (Dhariwal & Nichol 2021, section 4).

use serde::Serialize;

use crate::check::require;
use crate::error::{Naming, SpecError};
use crate::unet::UNetSpec;

/// Sizes of the classifier.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassifierSpec {
    /// The U-Net whose way down and bottom it has; `out_channels` has no effect. It is not class-conditional.
    pub encoder: UNetSpec,
    /// Number of classes that it distinguishes.
    pub classes: i64,
}

impl ClassifierSpec {
    /// Checks that the network can be built.
    ///
    /// # Errors
    /// [`SpecError`]: the encoder cannot be built, is given the class that is to be found, or there are fewer than two.
    pub fn validate(&self, naming: Naming) -> Result<(), SpecError> {
        self.encoder.validate(naming)?;
        let path = naming.path("classes");
        require(
            self.classes >= 2,
            &path,
            || format!("a classifier needs {path}, the two or more classes that it distinguishes"),
            || format!("Set {path} to the number of classes of the data, such as 10 for digits"),
        )?;
        let path = naming.path("encoder.classes");
        require(
            self.encoder.classes.is_none(),
            &path,
            || format!("{path} is set, and would give a classifier the class that it is to find"),
            || "Leave it out".into(),
        )
    }
}
