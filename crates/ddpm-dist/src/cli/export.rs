//! The arguments of `export`.

use std::path::PathBuf;

use clap::Args;
use ddpm_model::{Format, WeightChoice};

use super::device::DeviceArgs;
use super::paths::{address, path};
use super::words::format;

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// A run (`runs/mnist`), a run at a step (`runs/mnist@5000`), or a diffusers directory.
    #[arg(value_name = "SRC", value_parser = address)]
    pub model: String,
    /// The folder to write; it appears once it is complete.
    #[arg(long, value_name = "DIR", value_parser = path)]
    pub out: PathBuf,
    /// What to write.
    #[arg(long, default_value = "diffusers", value_parser = format())]
    pub format: Format,
    /// The weights to export: `ema` (the slowest average), `raw`, the rate of an average, or the width of one
    /// (`width=0.1`).
    #[arg(long, default_value = "ema", value_name = "ema|raw|RATE|width=W")]
    pub weights: WeightChoice,
    /// Do not export the checkpoint's other weights as variants.
    #[arg(long)]
    pub no_variants: bool,
    /// The licence in the model card, as the Hub spells it: `mit`, `apache-2.0`, `cc-by-4.0`, …
    #[arg(long, value_name = "ID", default_value = "unknown", value_parser = license)]
    pub license: String,
    /// Do not draw the images of the model card.
    #[arg(long)]
    pub no_grid: bool,
    /// Replace an earlier export; without this, a folder that is not empty is refused.
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    pub on: DeviceArgs,
}

fn license(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    if !text.is_empty() && text.chars().all(fits) {
        Ok(text.into())
    } else {
        Err("give the identifier of one licence in lower case, such as mit or cc-by-4.0".into())
    }
}
