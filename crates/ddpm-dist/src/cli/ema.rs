//! The arguments of `ema`.

use clap::Args;

use super::paths::{address, local};

/// Arguments of `ema`.
#[derive(Debug, Args)]
pub struct EmaArgs {
    /// A run (`runs/mnist`) that was trained with `ema.widths`, or such a run at a step (`runs/mnist@5000`).
    #[arg(long, value_name = "SRC", value_parser = address)]
    pub model: String,
    /// The width of the average, relative to the steps that it is of.
    #[arg(long, value_name = "W")]
    pub width: f64,
    /// The directory of the new run that holds it.
    #[arg(long, value_name = "RUN", value_parser = local)]
    pub out: String,
}
