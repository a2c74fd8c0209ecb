//! The networks that can be built.

use serde::{Deserialize, Serialize};

use crate::classifier::ClassifierSpec;
use crate::error::{Naming, SpecError};
use crate::small::SmallUNetSpec;
use crate::unet::UNetSpec;

/// The name of an [`Architecture`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// [`Architecture::UNet`].
    Unet,
    /// [`Architecture::Small`]; of `[model]` it uses `channels` only.
    Small,
    /// [`Architecture::Classifier`]: it uses only the noise and the timesteps of `[diffusion]`, and nothing of
    /// `[monitor]` that draws samples.
    Classifier,
}

/// What to build; written to files with its [`ModelKind`] as `kind`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Architecture {
    /// The U-Net of Ho et al. (2020) and Nichol & Dhariwal (2021): diffusers' UNet2DModel family.
    #[serde(rename = "unet")]
    UNet(UNetSpec),
    /// The tutorial's small U-Net without attention.
    Small(SmallUNetSpec),
    /// A classifier of noised images on the way down of the first (Dhariwal & Nichol 2021).
    Classifier(ClassifierSpec),
}

impl Architecture {
    /// Checks that the network can be built.
    ///
    /// # Errors
    /// [`SpecError`] in the field at fault.
    pub fn validate(&self, naming: Naming) -> Result<(), SpecError> {
        match self {
            Self::UNet(spec) => spec.validate(naming),
            Self::Small(spec) => spec.validate(naming),
            Self::Classifier(spec) => spec.validate(naming),
        }
    }
}
