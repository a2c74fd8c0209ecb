//! Checkpoints on object stores: shards, manifests, discovery and retention.
//!
//! A checkpoint consists of named flat `f32` buffers ("weights", "exp_avg", "ema/0.9999", ...), each split into one
//! contiguous range per writing rank, and a manifest with everything else that a bit-exact resume needs:
//!
//! ```
//! use ddpm_checkpoint::{
//!     Attempt, BufferEntry, CheckpointError, Dtype, Manifest, OwnedSlice, Pending, SCHEMA, Store, TensorEntry, Want,
//! };
//!
//! fn wait<T: Send + 'static>(mut pending: Pending<T>) -> Result<T, CheckpointError> {
//!     loop {
//!         if let Some(result) = pending.poll() {
//!             return result;
//!         }
//!         std::thread::yield_now(); // A trainer takes its next step here.
//!     }
//! }
//!
//! # fn main() -> Result<(), CheckpointError> {
//! let store = Store::open("memory://")?; // Or a directory, s3://bucket/prefix, gs://..., az://...
//! let attempt = Attempt::generate();
//! let weights = OwnedSlice { name: "weights".into(), range: 0..2, data: vec![0.5, -1.0] };
//! let shard = wait(store.start_upload(100, &attempt, 0, 1, Box::new(|| Ok(vec![weights]))))?; // Rank 0 of 1, step 100.
//! let manifest = Manifest {
//!     schema: SCHEMA,
//!     step: 100,
//!     position: 12_800,
//!     epoch: 0,
//!     seed: 1,
//!     attempt,
//!     nonce: ddpm_checkpoint::nonce(),
//!     lease: 0,
//!     program: "example".into(),
//!     config_hash: String::new(),
//!     config: serde_json::json!({}),
//!     state: serde_json::json!({ "adam_steps": 100 }),
//!     buffers: vec![BufferEntry { name: "weights".into(), len: 2 }],
//!     shards: vec![shard],
//!     tensors: vec![TensorEntry { name: "bias".into(), shape: vec![2], offset: 0, dtype: Dtype::F32 }],
//! };
//! wait(store.start_commit(manifest, None))?;
//!
//! let newest = store.search(Want::Latest)?.candidate()?.expect("a checkpoint was just committed");
//! assert_eq!(newest.step, 100);
//! assert_eq!(store.load_buffer(&newest, "weights")?, [0.5, -1.0]);
//! # Ok(())
//! # }
//! ```
//!
//! The contents of a store, under one prefix:
//!
//! ```text
//! run.json                                                    created once: schema, run id, resolved configuration
//! ckpt/{step:012}-{attempt}/r{rank:05}-of-{world:05}.safetensors    shards, written once
//! manifest/{step:012}.json                                    the commit: created last, never overwritten
//! lease.json                                                  who may commit now: generation, owner, expiry
//! aside/{step:012}-{ulid}.json                                manifests that a rewind took out of the history
//! ```
//!
//! A checkpoint is valid if and only if its manifest exists and every byte that it refers to verifies: shards by their
//! size and SHA-256, the manifest by the checksum in its own last line. A store that cannot be read is an error, never
//! "no checkpoint". Shards are ranges of the whole, so a checkpoint written by 4 ranks can be read by 1, 3 or 8.
//!
//! To save, rank 0 generates an [`Attempt`] and broadcasts it; every rank calls [`Store::start_upload`] with its
//! part of each buffer and continues training; rank 0 gathers the [`ShardEntry`]s into a [`Manifest`], calls
//! [`Store::start_commit`], and after that [`Store::start_retention`], which deletes older checkpoints.
//!
//! To resume, rank 0 calls [`Store::probe`] and [`Store::acquire_lease`] (unless it is guaranteed to be the only
//! writer), then goes through the checkpoints of a [`Store::search`], newest first; rank i of w reads the candidate's
//! shards i, i+w, ... with [`Store::read_shard`] into the buffers that they fill, and if any is damaged, the next older
//! candidate is tried; the ranks exchange what they have read, and rank 0 calls [`Store::rewind`].
//!
//! Calls block unless their names start with `start_`. They run on the store's own async runtime, so they must not be
//! made from inside an async task.

mod backend;
mod bucket;
mod commit;
mod copy;
mod digest;
mod discover;
mod download;
mod error;
mod failpoint;
mod layout;
mod lease;
mod manifest;
mod pace;
mod pending;
mod probe;
mod retain;
mod scan;
mod shard;
mod store;
#[cfg(test)]
mod tests;
mod unlock;
mod upload;
mod words;

pub use backend::StoreOptions;
pub use commit::Commit;
pub use discover::{Search, VerifyReport, Want};
pub use error::CheckpointError;
pub use failpoint::Failpoint;
pub use layout::{Attempt, nonce};
pub use lease::Lease;
pub use manifest::{BufferEntry, Dtype, Manifest, Run, SCHEMA, ShardEntry, ShardRange, TensorEntry};
pub use pending::Pending;
pub use retain::{Retention, RetentionReport};
pub use store::Store;
pub use unlock::LeaseStatus;
pub use upload::{OwnedSlice, Upload, Values};
