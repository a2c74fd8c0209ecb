//! What a file of weights does not say about its model.

use serde::{Deserialize, Serialize};

/// A property of a model that a file of weights does not reveal. OpenAI's code takes it as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unsaid {
    /// `image_size`.
    ImageSize,
    /// `num_heads`, or `num_head_channels`.
    Heads,
    /// `use_new_attention_order`.
    AttentionOrder,
    /// `diffusion_steps`.
    DiffusionSteps,
    /// `noise_schedule`.
    NoiseSchedule,
    /// `rescale_timesteps`.
    RescaleTimesteps,
}

impl Unsaid {
    /// What it is, and why the weights do not reveal it.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::ImageSize => "the size of the images (convolutions fit any)",
            Self::Heads => "the heads of its attention (any number has the same shapes)",
            Self::AttentionOrder => "the order of its attention's channels (both have the same shapes)",
            Self::DiffusionSteps => "the number of timesteps (no weight depends on it)",
            Self::NoiseSchedule => "the noise schedule (no weight depends on it)",
            Self::RescaleTimesteps => {
                "whether its timesteps were rescaled to 1000, as improved-diffusion does by default"
            }
        }
    }
}
