//! How commands name a configuration.

use clap::Args;

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
