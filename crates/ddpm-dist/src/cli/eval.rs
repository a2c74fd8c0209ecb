//! The arguments of `eval …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ddpm_data::Split;

use ddpm_model::WeightChoice;

use super::compare::CompareArgs;
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
    /// The distance of a model or of samples from images: the Fréchet distance between their features.
    Fid(FidArgs),
    /// The kernel distance between their features, which is unbiased.
    Kid(KidArgs),
    /// Precision and recall: how many of the samples look like images, and how many of the images are covered.
    Pr(PrArgs),
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
    /// `ema` (the slowest average), `raw`, the rate of an average, or the width of one (`width=0.1`).
    #[arg(long, default_value = "ema", value_name = "ema|raw|RATE|width=W")]
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
    /// Images per forward pass. [default: as many as fit into half of the memory, at most 64, on a GPU 256]
    #[arg(long, value_parser = at_least_one::<usize>)]
    pub batch: Option<usize>,
    #[command(flatten)]
    pub on: DeviceArgs,
}

/// Arguments of `eval fid`.
#[derive(Debug, Args)]
pub struct FidArgs {
    #[command(flatten)]
    pub compare: CompareArgs,
    /// Compare with these statistics instead of a data set's: an `.npz` file of pytorch-fid, ADM or EDM.
    #[arg(long, value_name = "FILE.npz", conflicts_with_all = ["data", "overrides", "split", "reference_count"],
          value_parser = path)]
    pub reference: Option<PathBuf>,
    /// Write the statistics of the data set to an `.npz` file, which pytorch-fid reads.
    #[arg(long, value_name = "FILE.npz", conflicts_with = "reference", value_parser = path)]
    pub write_reference: Option<PathBuf>,
}

/// Arguments of `eval kid`.
#[derive(Debug, Args)]
pub struct KidArgs {
    #[command(flatten)]
    pub compare: CompareArgs,
    /// Number of pairs of random subsets over which the distance is averaged.
    #[arg(long, default_value = "100", value_name = "N", value_parser = at_least_one::<usize>)]
    pub subsets: usize,
    /// Images in a subset.
    #[arg(long, default_value = "1000", value_name = "N", value_parser = at_least_one::<usize>)]
    pub subset_size: usize,
}

/// Arguments of `eval pr`.
#[derive(Debug, Args)]
pub struct PrArgs {
    #[command(flatten)]
    pub compare: CompareArgs,
    /// The ball around each image reaches to its k-th nearest neighbour.
    #[arg(short = 'k', long, default_value = "3", value_name = "K", value_parser = at_least_one::<usize>)]
    pub neighbours: usize,
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
    /// `ema` (the slowest average), `raw`, the rate of an average, or the width of one (`width=0.1`).
    #[arg(long, default_value = "ema", value_name = "ema|raw|RATE|width=W")]
    pub weights: WeightChoice,
    /// Images per forward pass. [default: as many as fit into half of the memory, at most 64, on a GPU 256]
    #[arg(long, value_parser = at_least_one::<usize>)]
    pub batch: Option<usize>,
    #[command(flatten)]
    pub on: DeviceArgs,
}
