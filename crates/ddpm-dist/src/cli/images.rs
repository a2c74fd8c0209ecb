//! How commands name the images that they work on.

use clap::Args;
use ddpm_data::Split;

use super::words::split;

/// Which images a command works on.
#[derive(Debug, Args)]
pub struct DataArgs {
    /// A TOML file or a preset whose `[data]` to use; by default that of the model's run.
    #[arg(long, value_name = "FILE")]
    pub data: Option<String>,
    /// Override one key of that configuration by a TOML value, e.g. `--set data.path=DIR`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Which part of the data set.
    #[arg(long, default_value = "test", value_parser = split())]
    pub split: Split,
}
