//! The arguments of `plot …`.

use std::path::PathBuf;

use clap::Subcommand;

use ddpm_config::SamplerKind;

use super::config::ConfigArgs;
use super::images::DataArgs;
use super::model::ModelArgs;
use super::numbers::{at_least_one, seed};
use super::paths::{path, png};
use super::words::sampler;

/// `plot …`
#[derive(Debug, Subcommand)]
pub enum PlotCommand {
    /// Noise schedules side by side: beta, alphas_cumprod, signal-to-noise ratio.
    Schedule {
        /// Also draw this configuration's schedule.
        #[arg(long, value_name = "FILE")]
        config: Option<String>,
        /// Number of timesteps.
        #[arg(long, default_value_t = 1000)]
        timesteps: u32,
        /// The picture.
        #[arg(long, value_name = "FILE.png", value_parser = png)]
        out: PathBuf,
    },
    /// A metric over a run's steps, as logged and averaged; for several runs, the averages in one chart.
    /// Evaluations on held-out images are shown as they are.
    #[command(name = "loss")]
    Metric {
        /// A run's directory; may be repeated.
        #[arg(long = "run", value_name = "DIR", required = true, value_parser = path)]
        runs: Vec<PathBuf>,
        /// A key of metrics.jsonl.
        #[arg(long, default_value = "loss", value_name = "KEY")]
        metric: String,
        /// The picture.
        #[arg(long, value_name = "FILE.png", value_parser = png)]
        out: PathBuf,
    },
    /// Pairs of numbers from text files, one curve per file, such as the distances of models trained in several ways.
    Points {
        /// A file with two numbers per line, x and y; may be repeated. Its name, without the ending, is the curve's.
        #[arg(long = "file", value_name = "FILE", required = true, value_parser = path)]
        files: Vec<PathBuf>,
        /// The horizontal axis's label.
        #[arg(long, value_name = "TEXT")]
        x_label: String,
        /// The vertical axis's label.
        #[arg(long, value_name = "TEXT")]
        y_label: String,
        /// The picture.
        #[arg(long, value_name = "FILE.png", value_parser = png)]
        out: PathBuf,
    },
    /// Images of a configuration's data set on their way to noise.
    Forward {
        #[command(flatten)]
        config: ConfigArgs,
        /// The picture.
        #[arg(long, value_name = "FILE.png", value_parser = png)]
        out: PathBuf,
    },
    /// Samples of a model on their way from noise.
    Reverse {
        #[command(flatten)]
        model: ModelArgs,
        /// The sampling method.
        #[arg(long, default_value = "ddim", value_parser = sampler())]
        sampler: SamplerKind,
        /// Number of denoising steps, of which ten are shown. [default: 50, or all if there are fewer]
        #[arg(long, value_parser = at_least_one::<usize>)]
        steps: Option<usize>,
        /// Seed of the noise.
        #[arg(long, default_value = "0", value_parser = seed, allow_negative_numbers = true)]
        seed: u64,
        /// The picture.
        #[arg(long, value_name = "FILE.png", value_parser = png)]
        out: PathBuf,
    },
    /// The variance of a model's reverse steps over t, with its bounds if it is learned.
    Variance {
        #[command(flatten)]
        model: ModelArgs,
        #[command(flatten)]
        data: DataArgs,
        /// Number of images to average a learned variance over.
        #[arg(short = 'n', long = "count", default_value = "16", value_parser = at_least_one::<usize>)]
        count: usize,
        /// The picture.
        #[arg(long, value_name = "FILE.png", value_parser = png)]
        out: PathBuf,
    },
    /// The terms of the variational bound over t.
    Terms {
        /// The output of `eval nll --json`.
        #[arg(long, value_name = "FILE.json", value_parser = path)]
        nll: PathBuf,
        /// The picture.
        #[arg(long, value_name = "FILE.png", value_parser = png)]
        out: PathBuf,
    },
    /// The sinusoidal embedding of the timestep, over t and channel.
    Embedding {
        /// Number of timesteps.
        #[arg(long, default_value = "1000", value_parser = at_least_one::<u32>)]
        timesteps: u32,
        /// Number of channels, even.
        #[arg(long, default_value = "128", value_parser = even)]
        channels: u32,
        /// The picture.
        #[arg(long, value_name = "FILE.png", value_parser = png)]
        out: PathBuf,
    },
}

fn even(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number: &u32| *number >= 4 && number.is_multiple_of(2));
    number.ok_or_else(|| "give an even number of at least 4: half of the channels are sines, half cosines".into())
}
