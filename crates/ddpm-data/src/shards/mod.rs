//! Files that hold many images each: Parquet, WebDataset, ZIP.

mod cache;
mod columns;
mod data;
mod fault;
mod find;
mod format;
mod index;
mod labels;
mod parquet;
mod pattern;
mod progress;
mod record;
mod source;
mod split;
mod stamp;
mod unpack;
mod webdataset;
mod zip;

pub(crate) use source::Sharded;
