//! Which sets of images a command compares, and by which features.

use std::path::PathBuf;

use clap::Args;
use ddpm_config::{Features, SamplerKind};
use ddpm_data::Split;
use ddpm_model::WeightChoice;

use super::device::DeviceArgs;
use super::guidance::GuidanceArgs;
use super::numbers::{at_least_one, from_0_to_1, seed};
use super::paths::{address, local, path};
use super::words::{sampler, split};

/// The two sets of images, and the features by which they are compared.
#[derive(Debug, Args)]
pub struct CompareArgs {
    #[command(flatten)]
    pub evaluated: EvaluatedArgs,
    /// A TOML file or a preset, with whose `[data]` to compare; with `--model`, by default that of the run.
    #[arg(long, value_name = "FILE")]
    pub data: Option<String>,
    /// Override one key of that configuration by a TOML value, e.g. `--set data.path=DIR`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Which part of that data set.
    #[arg(long, default_value = "train", value_parser = split())]
    pub split: Split,
    /// Compare with the first N images of that data set. [default: all]
    #[arg(long, value_name = "N", value_parser = at_least_one::<u64>)]
    pub reference_count: Option<u64>,
    /// `pixels`, or a TorchScript module from images f32 [B, C, H, W] in [-1, 1] to features [B, D].
    #[arg(long, default_value = "pixels", value_name = "pixels|FILE.pt", value_parser = features)]
    pub features: Features,
    /// Seed of the noise from which `--model` draws, and of any other draw.
    #[arg(long, default_value = "0", value_parser = seed, allow_negative_numbers = true)]
    pub seed: u64,
    /// Images per forward pass. [default: as many as fit into half of the memory, at most 64, on a GPU 256]
    #[arg(long, value_parser = at_least_one::<usize>)]
    pub batch: Option<usize>,
    #[command(flatten)]
    pub on: DeviceArgs,
}

/// The images that are evaluated.
#[derive(Debug, Args)]
pub struct EvaluatedArgs {
    #[command(flatten)]
    pub from: FromArgs,
    /// Number of images to evaluate: drawn from the model [default: 10000], or the first of the others [default: all].
    #[arg(short = 'n', long = "count", value_name = "N", value_parser = at_least_one::<usize>)]
    pub count: Option<usize>,
    /// Override one key of the configuration of `--images`.
    #[arg(long, value_name = "KEY=VALUE", conflicts_with_all = ["model", "samples"])]
    pub images_set: Vec<String>,
    /// Which part of the data set of `--images`.
    #[arg(long, default_value = "test", value_name = "SPLIT", conflicts_with_all = ["model", "samples"],
          value_parser = split())]
    pub images_split: Split,
    /// How the model draws.
    #[arg(long, default_value = "ddim", conflicts_with_all = ["samples", "images"], value_parser = sampler())]
    pub sampler: SamplerKind,
    /// Number of denoising steps. [default: 50, or all if there are fewer]
    #[arg(long, conflicts_with_all = ["samples", "images"], value_parser = at_least_one::<usize>)]
    pub steps: Option<usize>,
    /// DDIM's noise: 0 is deterministic, 1 is ancestral.
    #[arg(long, default_value = "0", conflicts_with_all = ["samples", "images"], value_parser = from_0_to_1)]
    pub eta: f64,
    #[command(flatten)]
    pub guidance: GuidanceArgs,
    /// `ema` (the slowest average), `raw`, the rate of an average, or the width of one (`width=0.1`).
    #[arg(long, default_value = "ema", value_name = "ema|raw|RATE|width=W", conflicts_with_all = ["samples", "images"])]
    pub weights: WeightChoice,
}

/// Where the evaluated images come from.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct FromArgs {
    /// Draw them from a run, a run at a step, or a diffusers directory; they are not stored.
    #[arg(long, value_name = "SRC", value_parser = address)]
    pub model: Option<String>,
    /// The output of `sample`: a safetensors file, or a folder of images.
    #[arg(long, value_name = "FILE|FOLDER", conflicts_with_all = ["guidance", "classifier"], value_parser = path)]
    pub samples: Option<PathBuf>,
    /// A TOML file or a preset, the images of whose `[data]` to evaluate.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["guidance", "classifier"])]
    pub images: Option<String>,
}

fn features(text: &str) -> Result<Features, String> {
    local(text).map(Features::from)
}
