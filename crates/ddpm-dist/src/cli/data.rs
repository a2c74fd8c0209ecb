//! `data …`, as typed.

use std::path::PathBuf;

use clap::Subcommand;

use super::config::ConfigArgs;
use super::paths::png;

/// `data …`
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Open a configuration's data set and print its size, its classes and a summary of its first images.
    Info {
        #[command(flatten)]
        config: ConfigArgs,
        /// Read every image and report those that cannot be read.
        #[arg(long)]
        check: bool,
        /// Save the first 64 images as a grid.
        #[arg(long, value_name = "FILE.png", value_parser = png)]
        out: Option<PathBuf>,
    },
}
