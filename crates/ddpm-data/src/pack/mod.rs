//! Packing a data set into few large files.

mod job;
mod manifest;
mod parquet;
mod record;
mod tar;

pub use job::{Packing, pack};
pub use manifest::{Manifest, PackFormat, PackedShard, verify};
