//! The command line: its commands and their arguments.

mod bench;
mod checkpoints;
mod compare;
mod config;
mod data;
mod device;
mod doctor;
mod ema;
mod encode;
mod eval;
mod export;
mod guidance;
mod help;
mod images;
mod import;
mod model;
mod numbers;
mod paths;
mod plan;
mod plot;
mod sample;
mod supervise;
mod train;
mod words;

use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, value_parser};
use ddpm_model::Error;

pub use bench::BenchCommand;
pub use checkpoints::CheckpointsCommand;
pub use compare::CompareArgs;
pub use config::ConfigArgs;
pub use data::DataCommand;
pub use doctor::DoctorArgs;
pub use ema::EmaArgs;
pub use encode::EncodeArgs;
pub use eval::{ClassesArgs, EvalCommand, FidArgs, KidArgs, NllArgs, PrArgs};
pub use export::ExportArgs;
pub use images::DataArgs;
pub use import::ImportArgs;
pub use plan::PlanArgs;
pub use plot::PlotCommand;
pub use sample::{ClassChoice, SampleArgs};
pub use supervise::SuperviseArgs;
pub use train::TrainArgs;

const EXIT_STATUS: &str = "\
Exit status: 0 done, 2 bad usage or configuration, 3 refused to resume, 4 the store or the data failed, 5 training \
diverged, 6 out of memory, 75 stopped on request after saving; of `supervise` also 7 and 8, see its --help.
Start here: ddpm-dist train --config smoke";

/// How long a store that does not respond is retried while somebody waits, in seconds.
const RETRY_FOR: u64 = 10;

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
    /// How long to retry a store that does not respond: 0 to 3600 seconds. [default: 10; in training,
    /// checkpoint.retry_s]
    #[arg(long, global = true, value_name = "SECONDS", value_parser = value_parser!(u64).range(..=3600))]
    retry_for: Option<u64>,
}

impl Cli {
    /// The arguments of this process.
    pub fn of_process() -> Result<Self, clap::Error> {
        let mut command = command();
        let typed = command.try_get_matches_from_mut(std::env::args_os())?;
        Self::from_arg_matches(&typed).map_err(|error| error.format(&mut command))
    }

    /// How long the person who waits for the command gives a store; none for commands whose configuration says how long
    /// to retry.
    pub fn patience(&self) -> Result<Option<Duration>, Error> {
        use Command::{Bench, Import, Train, TrainClassifier};
        let configured = matches!(self.command, Train(_) | TrainClassifier(_) | Bench(_) | Import(_));
        match (configured, self.retry_for) {
            (true, Some(seconds)) => Err(Error::config(format!(
                "--retry-for is for other commands, and this one takes its configuration's checkpoint.retry_s; give \
                 --set checkpoint.retry_s={seconds}"
            ))),
            (true, None) => Ok(None),
            (false, seconds) => Ok(Some(Duration::from_secs(seconds.unwrap_or(RETRY_FOR)))),
        }
    }
}

/// The command line, with examples in the help of every command.
pub fn command() -> clap::Command {
    help::with_examples(Cli::command(), "ddpm-dist")
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a model, from the start or from the newest checkpoint.
    Train(TrainArgs),
    /// Train a classifier of noised images, the U-Net's encoder, for `sample --classifier`; same options as `train`.
    TrainClassifier(TrainArgs),
    /// Keep a job that trains running: restart it when it fails, on the hosts that answer, until it is done.
    ///
    /// Exit status: that of the job; 7 if it failed twice at the same step with the same message, 8 if it used up its
    /// restarts or its hosts did not answer.
    Supervise(SuperviseArgs),
    /// Draw images from a model.
    Sample(SampleArgs),
    /// Encode images into the noise from which deterministic DDIM reconstructs them.
    Encode(EncodeArgs),
    /// Evaluate a model or its samples.
    #[command(subcommand)]
    Eval(EvalCommand),
    /// Export a model for diffusers, or as tensors for other programs.
    Export(ExportArgs),
    /// Make a run of a model from elsewhere: a diffusers directory, or a .pt file of improved- or guided-diffusion.
    Import(ImportArgs),
    /// Reconstruct an average of a run's weights, of any width between those that it kept.
    Ema(EmaArgs),
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
    /// Predict what a run would cost on a cluster, up to 1,024 GPUs: memory, time of a step and an epoch, checkpoints.
    ///
    /// Nothing is trained, and no GPU is needed. docs/scaling.md explains the model, and how far it has been checked.
    Plan(PlanArgs),
    /// Check this machine: libtorch, GPUs, MPI, a writable folder. With --ranks, compare all ranks of a run.
    Doctor(DoctorArgs),
    /// Print completions for a shell.
    Completions {
        /// bash, zsh, fish, …
        shell: clap_complete::Shell,
    },
    /// Write the manual as man pages, one for each command.
    Man {
        /// The folder to write them to.
        #[arg(value_name = "DIR", value_parser = paths::path)]
        folder: PathBuf,
    },
}
