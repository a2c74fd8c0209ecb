//! The two kinds of model that are trained.

use ddpm_config::{ModelKind, Settings};
use serde::{Deserialize, Serialize};

/// What a model has learned to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Learner {
    /// To denoise: a diffusion model.
    Diffusion,
    /// To classify noised images.
    Classifier,
}

impl Learner {
    /// What trains with these settings.
    pub fn of(settings: &Settings) -> Self {
        match settings.model.kind {
            ModelKind::Classifier => Self::Classifier,
            ModelKind::Unet | ModelKind::Small => Self::Diffusion,
        }
    }

    /// Its name, with the article.
    pub fn name(self) -> &'static str {
        match self {
            Self::Diffusion => "a diffusion model",
            Self::Classifier => "a classifier",
        }
    }
}
