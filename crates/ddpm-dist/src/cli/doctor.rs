//! The arguments of `doctor`.

use clap::Args;

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Compare all ranks: machines, clocks, libtorch, the links between them, and with --config store and data.
    #[arg(long)]
    pub ranks: bool,
    /// Also test the store and the data set of this configuration: as in `train`.
    #[arg(long, value_name = "FILE", requires = "ranks")]
    pub config: Option<String>,
    /// Override one key of it; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    pub overrides: Vec<String>,
}
