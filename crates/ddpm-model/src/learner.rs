//! The two kinds of model that can be trained.

use ddpm_config::{ModelKind, Settings};
use serde::{Deserialize, Serialize};

/// The task that a model is trained for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Learner {
    /// Denoising: a diffusion model.
    Diffusion,
    /// Classifying noised images: a classifier.
    Classifier,
}

impl Learner {
    /// The kind of model that these settings train.
    pub fn of(settings: &Settings) -> Self {
        match settings.model.kind {
            ModelKind::Classifier => Self::Classifier,
            ModelKind::Unet | ModelKind::Small => Self::Diffusion,
        }
    }

    /// The name of the kind, with its article.
    pub fn name(self) -> &'static str {
        match self {
            Self::Diffusion => "a diffusion model",
            Self::Classifier => "a classifier",
        }
    }
}
