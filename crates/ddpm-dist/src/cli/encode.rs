//! The arguments of `encode`.

use std::path::PathBuf;

use clap::Args;

use ddpm_diffusion::Spacing;

use super::images::DataArgs;
use super::model::ModelArgs;
use super::numbers::at_least_one;
use super::paths::path;
use super::words::spacing;

/// Arguments of `encode`.
#[derive(Debug, Args)]
pub struct EncodeArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub data: DataArgs,
    /// Number of images, taken from the start of the split.
    #[arg(short = 'n', long = "count", default_value = "64", value_parser = at_least_one::<usize>)]
    pub count: usize,
    /// Number of timesteps, at most as many as the model was trained on; decode with the same number. [default: 100, or
    /// all if there are fewer]
    #[arg(long, value_parser = at_least_one::<usize>)]
    pub steps: Option<usize>,
    /// Where `--steps` puts the timesteps; decode with the same. [default: as for `sample`]
    #[arg(long, value_parser = spacing())]
    pub spacing: Option<Spacing>,
    /// Images per forward pass. [default: as many as fit into half of the memory, at most 64, on a GPU 256]
    #[arg(long, value_parser = at_least_one::<usize>)]
    pub batch: Option<usize>,
    /// File for `noise` and the original `images`, f32 [N,C,H,W], and for their `labels` if the model has classes.
    #[arg(long, value_name = "FILE.safetensors", value_parser = safetensors)]
    pub out: PathBuf,
}

fn safetensors(text: &str) -> Result<PathBuf, String> {
    let path = path(text)?;
    let fits = path.extension().is_some_and(|extension| extension == "safetensors");
    if fits { Ok(path) } else { Err("noise is numbers, so give a name that ends in .safetensors".into()) }
}
