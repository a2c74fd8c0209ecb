//! `eval …`, as typed.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use ddpm_data::Split;

use ddpm_model::WeightChoice;

use super::device::DeviceArgs;
use super::images::DataArgs;
use super::numbers::{at_least_one, seed};
use super::paths::{address, path};
use super::words::split;

/// `eval …`
#[derive(Debug, Subcommand)]
pub enum EvalCommand {
    /// The likelihood of images under a model: the variational bound, in bits per dimension.
    Nll(NllArgs),
    /// The distance of samples from images: the Fréchet distance between their features.
    Fid(FidArgs),
    /// The classes that a classifier predicts for samples, or for its own data.
    Classes(ClassesArgs),
}

/// Arguments of `eval nll`.
#[derive(Debug, Args)]
pub struct NllArgs {
    /// A run (`runs/mnist`), a run at a step (`runs/mnist@5000`), or a diffusers directory.
    #[arg(long, value_name = "SRC", value_parser = address)]
    pub model: String,
    #[command(flatten)]
    pub data: DataArgs,
    /// Number of images, picked by `--seed`; by default all of the split.
    #[arg(short = 'n', long = "count", value_name = "N", value_parser = at_least_one::<u64>)]
    pub count: Option<u64>,
    /// `ema` (the slowest average), `raw`, or the rate of an average.
    #[arg(long, default_value = "ema", value_name = "ema|raw|RATE")]
    pub weights: WeightChoice,
    /// Estimate the bound from K timesteps of each image, drawn from K strata: unbiased, with a larger standard error.
    /// By default all timesteps are evaluated.
    #[arg(long, value_name = "K", conflicts_with = "respacing")]
    pub timesteps: Option<usize>,
    /// Evaluate the bound of the process respaced to fewer timesteps, `ddimN`, `N` or sections `a,b,c`
    /// (improved-diffusion's notation). It is not the bound of the model's own process, and usually looser.
    #[arg(long, value_name = "SPEC")]
    pub respacing: Option<String>,
    /// Seed of the noise, of the timesteps drawn, and of the choice of images.
    #[arg(long, default_value = "0", value_parser = seed, allow_negative_numbers = true)]
    pub seed: u64,
    /// Images per forward pass.
    #[arg(long, default_value = "64", value_parser = at_least_one::<usize>)]
    pub batch: usize,
    #[command(flatten)]
    pub on: DeviceArgs,
}

/// Arguments of `eval fid`.
#[derive(Debug, Args)]
pub struct FidArgs {
    /// The output of `sample`: a safetensors file, or a folder of images.
    #[arg(long, value_name = "FILE|FOLDER", value_parser = path)]
    pub samples: PathBuf,
    /// A TOML file or a preset; the samples are compared with the images of its `[data]`.
    #[arg(long, value_name = "FILE")]
    pub data: String,
    /// Override one key of that configuration by a TOML value, e.g. `--set data.path=DIR`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Which part of the data set.
    #[arg(long, default_value = "train", value_parser = split())]
    pub split: Split,
    /// Use only its first N images.
    #[arg(short = 'n', long = "count", value_name = "N", value_parser = at_least_one::<u64>)]
    pub count: Option<u64>,
    /// `pixels`, or a TorchScript module from images f32 [B, C, H, W] in [-1, 1] to features [B, D].
    #[arg(long, default_value = "pixels", value_name = "pixels|FILE.pt")]
    pub features: Features,
    /// Images per forward pass.
    #[arg(long, default_value = "64", value_parser = at_least_one::<usize>)]
    pub batch: usize,
    #[command(flatten)]
    pub on: DeviceArgs,
}

/// The features by which images are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Features {
    /// The pixel values themselves.
    Pixels,
    /// The output of this TorchScript module.
    File(PathBuf),
}

impl FromStr for Features {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "pixels" { Ok(Self::Pixels) } else { path(text).map(Self::File) }
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pixels => f.write_str("pixels"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// Arguments of `eval classes`.
#[derive(Debug, Args)]
pub struct ClassesArgs {
    /// The run of a classifier, trained by `train-classifier`, or such a run at a step.
    #[arg(long, value_name = "SRC", value_parser = address)]
    pub classifier: String,
    /// The output of `sample`: a safetensors file, or a folder of images, whose sub-folders, if any, are the classes.
    #[arg(long, value_name = "FILE|FOLDER", conflicts_with = "split", required_unless_present = "split",
          value_parser = path)]
    pub samples: Option<PathBuf>,
    /// Classify images of the classifier's own data instead: the first `-n` of this split.
    #[arg(long, value_parser = split())]
    pub split: Option<Split>,
    /// Number of images of the split.
    #[arg(short = 'n', long = "count", value_name = "N", default_value = "1000", requires = "split",
          value_parser = at_least_one::<u64>)]
    pub count: u64,
    /// Noise them to this timestep first; 0 is the least noise.
    #[arg(short, long, value_name = "T", requires = "split")]
    pub timestep: Option<usize>,
    /// `ema` (the slowest average), `raw`, or the rate of an average.
    #[arg(long, default_value = "ema", value_name = "ema|raw|RATE")]
    pub weights: WeightChoice,
    /// Images per forward pass.
    #[arg(long, default_value = "64", value_parser = at_least_one::<usize>)]
    pub batch: usize,
    #[command(flatten)]
    pub on: DeviceArgs,
}
