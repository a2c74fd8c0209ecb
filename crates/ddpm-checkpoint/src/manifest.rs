//! The manifest: the contents of a checkpoint, and the checks that it must pass before it is trusted.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::layout::{Attempt, shard_path};

/// The format version that this program writes, and the newest that it reads.
pub const SCHEMA: u32 = 1;

/// The name of the buffer that [`Manifest::tensors`] describes.
const WEIGHTS: &str = "weights";

/// The commit of one checkpoint. It records everything that a bit-exact resume needs; nothing is recomputed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`SCHEMA`] of the writer.
    pub schema: u32,
    /// Optimizer steps taken.
    pub step: u64,
    /// Images consumed.
    pub position: u64,
    /// The current epoch, counted from 0.
    pub epoch: u64,
    /// The seed of the run.
    pub seed: u64,
    /// The attempt whose shards these are.
    pub attempt: Attempt,
    /// Generated once per writer with [`nonce`](crate::nonce) and the same in all its manifests; distinguishes its
    /// commits from those of other writers.
    pub nonce: String,
    /// Generation of the writer's lease; 0 if the writer held none.
    pub lease: u64,
    /// Version of the program that wrote it.
    pub program: String,
    /// Hash of the part of the configuration that determines what is learned.
    pub config_hash: String,
    /// The resolved configuration.
    pub config: Value,
    /// The trainer's own state: optimizer step count, EMA counters, sampler history, skipped steps, cursors. Finite
    /// numbers are restored bit for bit.
    pub state: Value,
    /// The flat buffers, all of `f32`.
    pub buffers: Vec<BufferEntry>,
    /// The shards, by the rank that wrote them.
    pub shards: Vec<ShardEntry>,
    /// The parameters, in their order in the buffer "weights".
    pub tensors: Vec<TensorEntry>,
}

/// A flat buffer of the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BufferEntry {
    /// Its name, such as "weights" or "ema/0.9999".
    pub name: String,
    /// Its length in elements.
    pub len: u64,
}

/// One shard file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardEntry {
    /// Its path in the store.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// The SHA-256 of the file, in lower-case hexadecimal.
    pub sha256: String,
    /// The ranges that it holds.
    pub holds: Vec<ShardRange>,
}

/// A range of a buffer, in elements: `start..end`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRange {
    /// The buffer's name.
    pub buffer: String,
    /// First element.
    pub start: u64,
    /// One past the last element.
    pub end: u64,
}

/// One parameter's location in the buffer "weights" (and in every other buffer of that length).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorEntry {
    /// The parameter's name.
    pub name: String,
    /// Its shape; row-major.
    pub shape: Vec<u64>,
    /// Its first element.
    pub offset: u64,
    /// The type of its elements.
    pub dtype: Dtype,
}

/// The type of a tensor's elements, named as safetensors does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dtype {
    /// IEEE 754 single precision.
    F32,
}

/// The identity of a run, written once by [`Store::create_run`](crate::Store::create_run).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// [`SCHEMA`] of the writer.
    pub schema: u32,
    /// The run's id, a ULID.
    pub id: String,
    /// The resolved configuration with which the run first started.
    pub config: Value,
}

impl Manifest {
    /// How many ranks wrote the checkpoint.
    pub fn world(&self) -> usize {
        self.shards.len()
    }

    /// The size of all shards together, in bytes.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().fold(0, |sum, shard| sum.saturating_add(shard.size))
    }

    /// Checks the manifest's consistency: shards have the expected names, and their ranges tile every buffer without
    /// gaps or overlaps. An error gives the reason.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.shards.is_empty() {
            return Err("it lists no shards".into());
        }
        let mut tiles: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
        for buffer in &self.buffers {
            if tiles.insert(&buffer.name, Vec::new()).is_some() {
                return Err(format!("it lists the buffer {} twice", buffer.name));
            }
        }
        for (rank, shard) in self.shards.iter().enumerate() {
            self.check_shard(rank, shard, &mut tiles)?;
        }
        for BufferEntry { name, len } in &self.buffers {
            let ranges = tiles.get_mut(name.as_str()).expect("inserted above");
            ranges.sort_unstable();
            let covered = ranges.iter().try_fold(0, |at, &(start, end)| (start == at).then_some(end));
            if covered != Some(*len) {
                return Err(format!("its shards do not tile the {len} elements of {name} exactly"));
            }
        }
        self.check_tensors()
    }

    fn check_shard<'a>(
        &self,
        rank: usize,
        shard: &'a ShardEntry,
        tiles: &mut BTreeMap<&'a str, Vec<(u64, u64)>>,
    ) -> Result<(), String> {
        let expected = shard_path(self.step, &self.attempt, rank, self.world());
        if shard.path != expected.as_ref() {
            return Err(format!("it lists {:?} instead of {expected}", shard.path));
        }
        if shard.sha256.len() != 64 || !shard.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(format!("the SHA-256 of {} is malformed", shard.path));
        }
        let mut names = BTreeSet::new();
        let mut bytes = 0u64;
        for ShardRange { buffer, start, end } in &shard.holds {
            let ranges = tiles.get_mut(buffer.as_str());
            let ranges = ranges
                .ok_or_else(|| format!("{} holds {buffer}, which is not a buffer of this checkpoint", shard.path))?;
            let len = end.checked_sub(*start).and_then(|len| len.checked_mul(4));
            match len.and_then(|len| bytes.checked_add(len)) {
                Some(sum) if names.insert(buffer) => bytes = sum,
                _ => {
                    return Err(format!("{} holds an impossible range {start}..{end} of {buffer}", shard.path));
                }
            }
            ranges.push((*start, *end));
        }
        match shard.size < bytes {
            true => Err(format!("{} cannot hold {bytes} bytes in {}", shard.path, shard.size)),
            false => Ok(()),
        }
    }

    fn check_tensors(&self) -> Result<(), String> {
        let weights = self.buffers.iter().find(|b| b.name == WEIGHTS).map_or(0, |b| b.len);
        let mut names = BTreeSet::new();
        let mut at = 0;
        for tensor in &self.tensors {
            let len = tensor.shape.iter().try_fold(1u64, |n, &dim| n.checked_mul(dim));
            match len.and_then(|len| tensor.offset.checked_add(len)) {
                Some(end) if tensor.offset >= at && end <= weights && names.insert(&tensor.name) => at = end,
                _ => return Err(format!("the tensor {} lies outside {WEIGHTS} or overlaps another", tensor.name)),
            }
        }
        Ok(())
    }
}

/// Why sealed bytes were refused.
pub(crate) enum UnsealError {
    /// They differ from what was written.
    Damaged(String),
    /// They have a newer schema.
    Newer(u32),
}

/// Serialises to JSON whose last member is the checksum of every byte before it, with fixed formatting: any flipped bit
/// is detected, and other programs can check it without needing a canonical form of JSON.
pub(crate) fn seal(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("plain structs with string keys always serialise");
    bytes.truncate(bytes.len() - "\n}".len());
    let tail = seal_of(&bytes);
    bytes.extend_from_slice(tail.as_bytes());
    bytes
}

/// The inverse of [`seal`]: checksum first, schema second, and only then the content.
pub(crate) fn unseal<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, UnsealError> {
    #[derive(Deserialize)]
    struct Version {
        schema: u32,
    }
    let body = bytes.len().checked_sub(seal_of(&[]).len()).map(|at| bytes.split_at(at));
    if body.is_none_or(|(body, tail)| seal_of(body).as_bytes() != tail) {
        return Err(UnsealError::Damaged("its content does not match its checksum".into()));
    }
    let malformed = |e: serde_json::Error| UnsealError::Damaged(format!("it does not parse: {e}"));
    match serde_json::from_slice::<Version>(bytes).map_err(malformed)? {
        Version { schema } if schema > SCHEMA => Err(UnsealError::Newer(schema)),
        _ => serde_json::from_slice(bytes).map_err(malformed),
    }
}

fn seal_of(body: &[u8]) -> String {
    format!(",\n  \"checksum\": \"sha256:{}\"\n}}\n", hex(&Sha256::digest(body)))
}

pub(crate) fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
