//! The arguments of `import`.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, value_parser};
use ddpm_model::{NoiseSchedule, OpenAiArguments};
use ddpm_nn::Heads;

use super::numbers::at_least_one;
use super::paths::{local, path};
use super::words::noise_schedule;

/// No model was trained for longer, and times any batch it is still a number.
const MOST_STEPS: u64 = 1_000_000_000_000;

/// Arguments of `import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// A diffusers directory, or a file of weights that improved- or guided-diffusion saved.
    #[arg(value_name = "SRC", value_parser = path)]
    pub source: PathBuf,
    /// The directory of the new run.
    #[arg(long, value_name = "RUN", value_parser = local)]
    pub out: String,
    /// Set a key of the run's configuration, e.g. `--set data.path=images`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Number of steps that the model has been trained for.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = value_parser!(u64).range(..=MOST_STEPS))]
    pub step: u64,
    #[command(flatten)]
    pub openai: OpenAiFlags,
}

/// The arguments of OpenAI's scripts that their files do not record; each also as they spell it, with underscores.
#[derive(Debug, Args)]
#[command(next_help_heading = "Files of OpenAI's code")]
pub struct OpenAiFlags {
    /// Side of the square images.
    #[arg(long, alias = "image_size", value_name = "N", value_parser = at_least_one::<u32>)]
    image_size: Option<u32>,
    /// Attention heads at every level.
    #[arg(long, alias = "num_heads", value_name = "N", value_parser = at_least_one::<u32>)]
    num_heads: Option<u32>,
    /// Channels per attention head, instead of `--num-heads`.
    #[arg(long, alias = "num_head_channels", value_name = "N", value_parser = at_least_one::<u32>)]
    #[arg(conflicts_with = "num_heads")]
    num_head_channels: Option<u32>,
    /// Number of timesteps that the model was trained on.
    #[arg(long, alias = "diffusion_steps", value_name = "T", value_parser = at_least_one::<u32>)]
    diffusion_steps: Option<u32>,
    /// The noise schedule.
    #[arg(long, alias = "noise_schedule", value_parser = noise_schedule())]
    noise_schedule: Option<NoiseSchedule>,
    /// Whether the network saw t * 1000/T instead of t; the default is true in improved- and false in guided-diffusion.
    #[arg(long, alias = "rescale_timesteps", value_name = "BOOL", value_parser = BoolishValueParser::new())]
    rescale_timesteps: Option<bool>,
    /// Whether the attention holds all queries before all keys; always false in improved-diffusion.
    #[arg(long, alias = "use_new_attention_order", value_name = "BOOL", value_parser = BoolishValueParser::new())]
    use_new_attention_order: Option<bool>,
    /// Whether the network predicts the image instead of the noise.
    #[arg(long, alias = "predict_xstart", value_name = "BOOL", value_parser = BoolishValueParser::new())]
    #[arg(default_value = "false", action = ArgAction::Set)]
    predict_xstart: bool,
    /// Whether a variance that is not learned is the smaller one.
    #[arg(long, alias = "sigma_small", value_name = "BOOL", value_parser = BoolishValueParser::new())]
    #[arg(default_value = "false", action = ArgAction::Set)]
    sigma_small: bool,
}

impl OpenAiFlags {
    /// In the terms of the library.
    pub fn arguments(&self) -> OpenAiArguments {
        let number = self.num_heads.map(|number| Heads::Number(number.into()));
        let width = self.num_head_channels.map(|width| Heads::Width(width.into()));
        OpenAiArguments {
            image_size: self.image_size.map(|side| side as usize),
            heads: number.or(width),
            diffusion_steps: self.diffusion_steps.map(|steps| steps as usize),
            noise_schedule: self.noise_schedule,
            rescale_timesteps: self.rescale_timesteps,
            use_new_attention_order: self.use_new_attention_order,
            predict_xstart: self.predict_xstart,
            sigma_small: self.sigma_small,
        }
    }
}
