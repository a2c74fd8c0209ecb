//! How commands name a model.

use clap::Args;
use ddpm_model::WeightChoice;

use super::device::DeviceArgs;
use super::paths::address;

/// Which model to look at.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// A run (`runs/mnist`), a run at a step (`runs/mnist@5000`), or a diffusers directory.
    #[arg(long, value_name = "SRC", value_parser = address)]
    pub model: String,
    /// `ema` (the slowest average), `raw`, the rate of an average, or the width of one (`width=0.1`).
    #[arg(long, default_value = "ema", value_name = "ema|raw|RATE|width=W")]
    pub weights: WeightChoice,
    #[command(flatten)]
    pub on: DeviceArgs,
}
