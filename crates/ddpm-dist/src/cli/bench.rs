//! The arguments of `bench`.

use std::path::PathBuf;

use clap::Subcommand;

use super::config::ConfigArgs;
use super::numbers::at_least_one;
use super::paths::{address, path};

/// `bench …`; each benchmark trains or saves as a run would, and leaves nothing behind.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Training steps: images per second, time to the first step, peak memory.
    Step {
        #[command(flatten)]
        config: ConfigArgs,
        /// Steps to measure.
        #[arg(long, default_value = "30", value_name = "N", value_parser = at_least_one::<u64>)]
        steps: u64,
        /// Warm-up steps before those.
        #[arg(long, default_value = "5", value_name = "N")]
        warmup: u64,
        /// Then trace five more steps to this file, as `train --profile` does, and print the operators that took the
        /// most time.
        #[arg(long, value_name = "FILE", value_parser = path)]
        profile: Option<PathBuf>,
    },
    /// Averaging the gradients over the ranks, compared with a plain MPI all-reduce of the same number of bytes.
    Allreduce {
        #[command(flatten)]
        config: ConfigArgs,
        /// Number of repetitions; medians are reported.
        #[arg(long, default_value = "20", value_name = "N", value_parser = at_least_one::<u64>)]
        repeat: u64,
    },
    /// Decoding images with the configured workers.
    Loader {
        #[command(flatten)]
        config: ConfigArgs,
        /// Batches to decode.
        #[arg(long, default_value = "100", value_name = "N", value_parser = at_least_one::<u64>)]
        steps: u64,
    },
    /// Saving and loading the training state; with --steps, how much saves slow down the training that they overlap
    /// with.
    Checkpoint {
        #[command(flatten)]
        config: ConfigArgs,
        /// Where to save: a folder, s3://, gs:// or az://. Everything is written below a prefix of its own there, which
        /// is deleted at the end. By default a folder below $TMPDIR.
        #[arg(long, value_name = "URI", value_parser = address)]
        uri: Option<String>,
        /// Number of repetitions; medians are reported, or sums with --steps.
        #[arg(long, default_value = "5", value_name = "N", value_parser = at_least_one::<u64>)]
        repeat: u64,
        /// Train N steps without saves, N with saves in the background, and N that wait for each save.
        #[arg(long, value_name = "N", value_parser = at_least_one::<u64>)]
        steps: Option<u64>,
        /// Steps between those saves.
        #[arg(long, default_value = "100", value_name = "K", requires = "steps", value_parser = at_least_one::<u64>)]
        every: u64,
    },
}

impl BenchCommand {
    /// The configuration to measure.
    pub fn config(&self) -> &ConfigArgs {
        match self {
            Self::Step { config, .. }
            | Self::Allreduce { config, .. }
            | Self::Loader { config, .. }
            | Self::Checkpoint { config, .. } => config,
        }
    }
}
