//! Files in an object store: read by range, in blocks that are kept in memory and on the disk.

mod blocks;
mod bucket;
mod disk;
mod fetch;
mod memory;
mod object;
mod plan;
#[cfg(test)]
mod tests;
mod version;
mod waiting;

pub(crate) use bucket::Bucket;
pub(crate) use object::{Object, is_address};
