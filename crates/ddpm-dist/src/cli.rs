//! The command line, as typed.

mod bench;
mod checkpoints;
mod encode;
mod eval;
mod paths;
mod plot;
mod words;

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};
use ddpm_comm::World;
use ddpm_config::{Device, SamplerKind};
use ddpm_diffusion::Spacing;

use ddpm_model::{Failure, WeightChoice, resolve_device};
use ddpm_train::ResumeFrom;

use paths::{address, local, path, png};
use words::{device, sampler, spacing, split};

pub use bench::BenchCommand;
pub use checkpoints::CheckpointsCommand;
pub use encode::EncodeArgs;
pub use eval::{ClassesArgs, DataArgs, EvalCommand, Features, FidArgs, NllArgs};
pub use plot::{ModelArgs, PlotCommand};

const EXIT_STATUS: &str = "\
Exit status: 0 done, 2 bad usage or configuration, 3 refused to resume, 4 the store or the data failed, 5 training
diverged, 75 stopped on request after saving.
Start here: ddpm-dist train --config smoke";

/// Trains denoising diffusion models across ranks. Started directly it is a single rank; under mpirun, one of several.
#[derive(Debug, Parser)]
#[command(name = "ddpm-dist", version, propagate_version = true, after_help = EXIT_STATUS)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Print results on stdout as one JSON object per line.
    #[arg(long, global = true)]
    pub json: bool,
    /// Log on every rank, not only on rank 0.
    #[arg(long, global = true)]
    pub all_ranks: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a model, from the start or from the newest checkpoint.
    Train(TrainArgs),
    /// Train a classifier of noised images, the U-Net's encoder, for `sample --classifier`; same options as `train`.
    TrainClassifier(TrainArgs),
    /// Draw images from a model.
    Sample(SampleArgs),
    /// Encode images into the noise from which deterministic DDIM reconstructs them.
    Encode(EncodeArgs),
    /// Evaluate a model or its samples.
    #[command(subcommand)]
    Eval(EvalCommand),
    /// List, show, verify, delete and copy the checkpoints of a run, and free a store that a killed run still holds.
    #[command(subcommand)]
    Checkpoints(CheckpointsCommand),
    /// Inspect a data set.
    #[command(subcommand)]
    Data(DataCommand),
    /// Plot the diffusion process, a model's samples on their way from noise, or a run's loss.
    #[command(subcommand)]
    Plot(PlotCommand),
    /// Measure what a configuration costs on this machine.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Check this machine: libtorch, GPUs, MPI, a writable folder.
    Doctor,
    /// Print completions for a shell.
    Completions {
        /// bash, zsh, fish, …
        shell: clap_complete::Shell,
    },
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// A TOML file, `-` for stdin, or the name of a preset in configs/, such as smoke, digits, mnist or celeba64.
    #[arg(long, value_name = "FILE")]
    pub config: String,
    /// Override one key by a TOML value, e.g. `--set train.lr=1e-4`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
}

/// Arguments of `train` and `train-classifier`.
#[derive(Debug, Args)]
pub struct TrainArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// `auto`: resume from the newest checkpoint, if any; `never`: start afresh, refused if there are checkpoints; or
    /// the step to resume from.
    #[arg(long, default_value = "auto", value_name = "auto|never|STEP", value_parser = resume)]
    pub resume: ResumeFrom,
    /// Short for `--set train.steps=N`.
    #[arg(long, value_name = "N", value_parser = at_least_one::<u64>)]
    pub steps: Option<u64>,
    /// Print the resolved configuration, sizes and plan, and stop.
    #[arg(long, conflicts_with = "profile")]
    pub dry_run: bool,
    /// On resume, allow this key to differ from the checkpoint's; `data`: the images and all keys of [data]. May be
    /// repeated.
    #[arg(long, value_name = "KEY|data")]
    pub allow_change: Vec<String>,
    /// Trace steps 4 to 8 to this file, for ui.perfetto.dev or chrome://tracing; with several ranks each writes its
    /// own: for FILE.json, FILE.rank0.json and so on.
    #[arg(long, value_name = "FILE", value_parser = path)]
    pub profile: Option<PathBuf>,
}

fn resume(text: &str) -> Result<ResumeFrom, String> {
    match text {
        "auto" => Ok(ResumeFrom::Auto),
        "never" => Ok(ResumeFrom::Never),
        _ => text.parse().map(ResumeFrom::Step).map_err(|_| "give auto, never or the step of a checkpoint".into()),
    }
}

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
    /// Where `--steps` puts the timesteps.
    #[arg(long, default_value = "leading", value_parser = spacing(), conflicts_with = "respacing")]
    pub spacing: Spacing,
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
    /// `ema` (the slowest average), `raw`, or the rate of an average.
    #[arg(long, default_value = "ema", value_name = "ema|raw|RATE")]
    pub weights: WeightChoice,
    /// The class to draw, or `all` for one row per class; by default the classes take turns.
    #[arg(long, value_name = "K|all")]
    pub class: Option<ClassChoice>,
    /// Classifier-free guidance scale: 0 is unconditional, 1 is conditional, and more exaggerates the class.
    #[arg(long, value_name = "W", requires = "class", value_parser = finite)]
    pub guidance: Option<f64>,
    /// The run of a classifier that guides the images to their class, trained by `train-classifier` on the same noise.
    #[arg(long, value_name = "SRC", requires = "class", value_parser = address)]
    pub classifier: Option<String>,
    /// Scale of the classifier's gradient: 0 is unguided, 1 follows Bayes' rule, and more exaggerates the class.
    #[arg(long, default_value = "1", value_name = "S", requires = "classifier", value_parser = not_negative)]
    pub classifier_scale: f64,
    /// Start from tensor `noise` [N,C,H,W] of this safetensors file, as `encode` writes it.
    #[arg(long, value_name = "FILE", value_parser = path)]
    pub init_noise: Option<PathBuf>,
    /// Images per forward pass.
    #[arg(long, default_value = "64", value_parser = at_least_one::<usize>)]
    pub batch: usize,
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

/// The device of a network; training takes it from `train.device`.
#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// Where to compute: `cuda` is one GPU per rank; `auto` is `cuda` if there are GPUs, else the CPU.
    #[arg(long, default_value = "auto", value_parser = device())]
    pub device: Device,
}

impl DeviceArgs {
    /// This rank's device, decided by all ranks together.
    pub fn resolve(&self, world: &World) -> Result<tch::Device, Failure> {
        resolve_device(world, self.device, "--device")
    }
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

fn at_least_one<N: FromStr + PartialOrd + From<u8>>(text: &str) -> Result<N, String> {
    let count = text.parse().ok().filter(|count| *count >= N::from(1));
    count.ok_or_else(|| "give a whole number of at least 1".into())
}

fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("give a whole number from 0 to {}", u64::MAX))
}

fn from_0_to_1(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|number| (0.0..=1.0).contains(number)).ok_or_else(|| "give a number from 0 to 1".into())
}

fn finite(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(|| "give a number".into())
}

fn not_negative(text: &str) -> Result<f64, String> {
    let scale = text.parse().ok().filter(|number: &f64| *number >= 0.0 && number.is_finite());
    scale.ok_or_else(|| "give a number, 0 or above".into())
}

fn percentile(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (50.0..=100.0).contains(number));
    number.ok_or_else(|| "give a percentile from 50 to 100, such as 99.5".into())
}

/// `data …`
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Open a configuration's data set and print its size, its classes and a summary of its first images.
    Info {
        #[command(flatten)]
        config: ConfigArgs,
        /// Read every image and report those that cannot be read.
        #[arg(long)]
        check: bool,
        /// Save the first 64 images as a grid.
        #[arg(long, value_name = "FILE.png", value_parser = png)]
        out: Option<PathBuf>,
    },
}
