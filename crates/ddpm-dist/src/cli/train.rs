//! The arguments of `train` and `train-classifier`.

use std::path::PathBuf;

use clap::Args;
use ddpm_train::ResumeFrom;

use super::config::ConfigArgs;
use super::numbers::at_least_one;
use super::paths::{address, path};

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
    /// Start from the weights of this model, anything that `sample --model` takes; short for
    /// `--set train.init_from=SRC`.
    #[arg(long, value_name = "SRC", value_parser = address)]
    pub init_from: Option<String>,
    /// Draw the tensors that do not fit that model's at random, as for another number of classes or of channels; short
    /// for `--set train.init_skip_mismatched=true`.
    #[arg(long)]
    pub init_skip_mismatched: bool,
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
