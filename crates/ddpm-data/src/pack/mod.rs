//! Packing a data set into few large files.

mod folder;
mod hashing;
mod job;
mod manifest;
mod parquet;
mod record;
mod tar;
mod verify;

pub use job::{Packing, pack};
pub(crate) use manifest::class_names;
pub use manifest::{Manifest, PackFormat, PackedShard};
pub use verify::verify;
