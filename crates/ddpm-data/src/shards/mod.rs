//! Files that hold many images each: Parquet, WebDataset, ZIP.

mod cache;
mod columns;
mod data;
mod fault;
mod file;
mod find;
mod format;
mod index;
mod labels;
mod objects;
mod parquet;
mod record;
mod source;
mod unpack;
mod webdataset;
mod zip;

pub(crate) use source::Sharded;
