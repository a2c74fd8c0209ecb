//! The arguments of `data …`.

use std::path::PathBuf;

use clap::Subcommand;
use ddpm_data::{PackFormat, Split};

use super::config::ConfigArgs;
use super::paths::{path, png};
use super::words::{pack_format, split};

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
        /// Part of the data set.
        #[arg(long, default_value = "train", value_parser = split())]
        split: Split,
    },
    /// Read every image and print statistics: mean and deviation of the channels, sizes, classes, equal images.
    Stats {
        #[command(flatten)]
        config: ConfigArgs,
        /// Part of the data set.
        #[arg(long, default_value = "train", value_parser = split())]
        split: Split,
    },
    /// Pack a data set into a few large files that are quick to read and to copy, with a manifest of checksums.
    Pack {
        #[command(flatten)]
        config: ConfigArgs,
        /// The folder to write to; it must be empty or not exist.
        #[arg(long, value_name = "DIR", value_parser = path)]
        out: PathBuf,
        /// Format of the files.
        #[arg(long, default_value = "parquet", value_parser = pack_format())]
        format: PackFormat,
        /// Images per file.
        #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
        per_shard: u64,
        /// Store images of data.image_size and data.channels as PNG, in place of the original files.
        #[arg(long)]
        resize: bool,
        /// Part of the data set.
        #[arg(long, default_value = "train", value_parser = split())]
        split: Split,
    },
}
