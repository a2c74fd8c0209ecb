//! Checkpoints on object stores: shards, manifests, discovery and retention.
//!
//! A checkpoint holds named flat `f32` buffers ("weights", "exp_avg", "ema/0.9999", ...), cut into one contiguous range
//! per writing rank, and everything else that a bit-exact continuation needs. What a store holds, under one prefix:
//!
//! ```text
//! run.json                                                    created once: schema, run id, resolved configuration
//! ckpt/{step:012}-{attempt}/r{rank:05}-of-{world:05}.safetensors    shards, written once
//! manifest/{step:012}.json                                    the commit: created last, never overwritten
//! lease.json                                                  who may commit now: generation, owner, expiry
//! aside/{step:012}-{ulid}.json                                manifests a rewind took out of the line
//! ```
//!
//! A checkpoint is valid if and only if its manifest exists and every byte that it names verifies: shards by their
//! size and SHA-256, the manifest by the checksum in its own last line. A store that cannot be read is an error, never
//! "no checkpoint". Shards are ranges of the whole, so what 4 ranks wrote is read by 1, 3 or 8.
//!
//! A save: rank 0 draws an [`Attempt`] and shares it; every rank calls [`Store::start_upload`] with its [`share`] of
//! each buffer and trains on; rank 0 gathers the [`ShardEntry`]s into a [`Manifest`] and calls [`Store::start_commit`], and
//! once that is done [`Store::start_retention`], which deletes older checkpoints.
//! A resume: rank 0 calls [`Store::probe`] and [`Store::acquire_lease`] (or is promised to be the only writer), then
//! goes through the checkpoints of a [`Store::search`], newest first; rank i of w reads the candidate's shards i, i+w, ...
//! with [`Store::read_shard`], and if any is damaged the next older candidate is tried; the ranks exchange what they
//! read, and rank 0 calls [`Store::rewind`].
//!
//! Calls block unless they start with `start_`; the runtime they need is the store's own, so they must not be made from
//! inside an async task.

mod backend;
mod bucket;
mod client;
mod commit;
mod copy;
mod discover;
mod endpoint;
mod error;
mod failpoint;
mod layout;
mod lease;
mod manifest;
mod pending;
mod probe;
mod retain;
mod shard;
mod store;
#[cfg(test)]
mod tests;
mod trouble;
mod unlock;
mod upload;

pub use backend::StoreOptions;
pub use commit::Commit;
pub use discover::{Report, Search, Want};
pub use error::CheckpointError;
pub use failpoint::Failpoint;
pub use layout::{Attempt, nonce, share};
pub use lease::Lease;
pub use manifest::{BufferEntry, Dtype, Hold, Manifest, Run, SCHEMA, ShardEntry, TensorEntry};
pub use pending::Pending;
pub use retain::{Retained, Retention};
pub use shard::{BufferSlice, ShardData};
pub use store::Store;
pub use unlock::Tenure;
pub use upload::{OwnedSlice, Upload};
