//! The arguments of `sample`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use ddpm_config::SamplerKind;
use ddpm_diffusion::Spacing;
use ddpm_model::WeightChoice;

use super::device::DeviceArgs;
use super::guidance::GuidanceArgs;
use super::numbers::{at_least_one, from_0_to_1, percentile, seed};
use super::paths::{address, local, path};
use super::words::{sampler, spacing};

/// Arguments of `sample`.
#[derive(Debug, Args)]
pub struct SampleArgs {
    /// A run (`runs/mnist`), a run at a step (`runs/mnist@5000`), or a diffusers directory.
    #[arg(long, value_name = "SRC", value_parser = address)]
    pub model: String,
    /// Number of images.
    #[arg(short = 'n', long = "count", default_value = "64", value_parser = at_least_one::<usize>)]
    pub count: usize,
    /// The sampling method.
    #[arg(long, default_value = "ddim", value_parser = sampler())]
    pub sampler: SamplerKind,
    /// Number of denoising steps, at most as many as the model was trained on. [default: 50, or all if there are fewer]
    #[arg(long, value_parser = at_least_one::<usize>, conflicts_with = "respacing")]
    pub steps: Option<usize>,
    /// Instead of --steps, the timesteps to keep: `ddimN`, `N` or sections `a,b,c` (improved-diffusion's notation).
    #[arg(long, value_name = "SPEC")]
    pub respacing: Option<String>,
    /// DDIM's noise: 0 is deterministic, 1 is ancestral.
    #[arg(long, default_value = "0", value_parser = from_0_to_1)]
    pub eta: f64,
    /// Where `--steps` puts the timesteps. [default: leading, or trailing for a model with zero terminal SNR]
    #[arg(long, value_parser = spacing(), conflicts_with = "respacing")]
    pub spacing: Option<Spacing>,
    /// Clip the predicted image to [-1, 1] at every step; the default, unless a diffusers scheduler turns it off.
    #[arg(long, overrides_with = "no_clip")]
    pub clip: bool,
    /// Do not clip the predicted image.
    #[arg(long)]
    pub no_clip: bool,
    /// Dynamic thresholding: clip each predicted image to this percentile of its own absolute values instead, and
    /// rescale it to [-1, 1].
    #[arg(long, value_name = "PERCENTILE", value_parser = percentile, conflicts_with_all = ["clip", "no_clip"])]
    pub threshold: Option<f64>,
    /// Langevin corrector steps after each step; not with dpmpp.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub corrector_steps: usize,
    /// Size of a corrector step, as its ratio to the noise, between 0 and 1.
    #[arg(long, default_value = "0.1", value_name = "R", requires = "corrector_steps")]
    pub corrector_snr: f64,
    /// Seed of the noise; image i depends only on the seed and i.
    #[arg(long, default_value = "0", value_parser = seed, allow_negative_numbers = true)]
    pub seed: u64,
    /// `ema` (the slowest average), `raw`, the rate of an average, or the width of one (`width=0.1`).
    #[arg(long, default_value = "ema", value_name = "ema|raw|RATE|width=W")]
    pub weights: WeightChoice,
    /// The class to draw, or `all` for one row per class; by default the classes take turns.
    #[arg(long, value_name = "K|all")]
    pub class: Option<ClassChoice>,
    #[command(flatten)]
    pub guidance: GuidanceArgs,
    /// Start from tensor `noise` [N,C,H,W] of this safetensors file, as `encode` writes it.
    #[arg(long, value_name = "FILE", value_parser = path)]
    pub init_noise: Option<PathBuf>,
    /// Images per forward pass. [default: as many as fit into half of the memory, at most 64, on a GPU 256]
    #[arg(long, value_parser = at_least_one::<usize>)]
    pub batch: Option<usize>,
    /// Save every intermediate image too (safetensors output only).
    #[arg(long)]
    pub trajectory: bool,
    #[command(flatten)]
    pub on: DeviceArgs,
    /// `grid.png`, `samples.safetensors`, or a folder (ending in `/`) for one PNG per image.
    #[arg(long, value_name = "PATH", value_parser = local)]
    pub out: String,
    /// First delete the numbered images that an earlier run left in the folder; without this, a folder that contains
    /// images is refused.
    #[arg(long)]
    pub overwrite: bool,
}

/// Which classes to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassChoice {
    /// One class.
    One(i64),
    /// Every class in turn.
    All,
}

impl FromStr for ClassChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            _ => text.parse().map(Self::One).map_err(|_| "give a class number or all".into()),
        }
    }
}
