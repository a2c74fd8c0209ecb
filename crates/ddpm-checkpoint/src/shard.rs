//! Shards: one rank's ranges of every buffer, as one safetensors file.

use std::{ops::Range, sync::atomic::Ordering};

use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStoreExt, path::Path};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use sha2::{Digest, Sha256};

use crate::{
    CheckpointError, Failpoint, Manifest, ShardEntry, ShardRange, Store, bucket::Bucket, layout::manifest_path,
    manifest::hex,
};

/// A range of a named flat buffer with its values, read or to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct BufferSlice<'a> {
    /// The buffer's name.
    pub name: &'a str,
    /// Where in the buffer the values belong, in elements.
    pub range: Range<usize>,
    /// The values; as many as the range is long.
    pub data: &'a [f32],
}

/// A verified shard in memory.
#[derive(Debug)]
pub struct ShardData {
    /// The file as 32-bit words, header included, so that reading needs no second copy.
    words: Vec<f32>,
    /// The ranges that it holds, and the word at which each starts.
    holds: Vec<(ShardRange, usize)>,
}

impl ShardData {
    /// The ranges that the shard holds, in the order written.
    pub fn slices(&self) -> impl Iterator<Item = BufferSlice<'_>> {
        self.holds.iter().map(|(hold, at)| {
            let range = hold.start as usize..hold.end as usize;
            BufferSlice { name: &hold.buffer, data: &self.words[*at..at + range.len()], range }
        })
    }
}

impl Store {
    /// Reads shard `index` of a checkpoint and checks its size, its SHA-256, and that it holds the ranges listed in the
    /// manifest.
    ///
    /// # Errors
    /// `Damaged`, `Store`; `Invalid` if there is no such shard.
    pub fn read_shard(&self, manifest: &Manifest, index: usize) -> Result<ShardData, CheckpointError> {
        let entry = manifest.shards.get(index).ok_or_else(|| CheckpointError::Invalid {
            path: manifest_path(manifest.step).to_string(),
            reason: format!("shard {index} was requested, but there are {}", manifest.world()),
        })?;
        let mut words = Vec::new();
        self.block_on(self.bucket.scan(entry, async |block| {
            // Reserve once, now that the store is known to have this many bytes: growing step by step could take twice
            // the memory.
            words.reserve_exact(entry.size as usize / 4 - words.len());
            words.extend(block.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)));
            Ok(())
        }))?;
        let path = Path::from(entry.path.as_str());
        let holds = locate(&words, entry).map_err(|reason| self.bucket.damaged(&path, reason))?;
        Failpoint::ShardRead.reach();
        Ok(ShardData { words, holds })
    }

    /// One whole buffer of a checkpoint, assembled from the shards that hold it, each of which is fully verified.
    ///
    /// # Errors
    /// As [`read_shard`](Self::read_shard); `NotFound`, listing the existing names, if the checkpoint has no such
    /// buffer.
    pub fn load_buffer(&self, manifest: &Manifest, name: &str) -> Result<Vec<f32>, CheckpointError> {
        if !manifest.buffers.iter().any(|buffer| buffer.name == name) {
            let names: Vec<_> = manifest.buffers.iter().map(|buffer| buffer.name.as_str()).collect();
            return Err(CheckpointError::NotFound {
                uri: self.uri().into(),
                path: format!("the buffer {name} of step {}", manifest.step),
                hint: format!(": it holds {}", names.join(", ")),
            });
        }
        let start = |shard: &ShardEntry| {
            let hold = shard.holds.iter().find(|hold| hold.buffer == name && hold.start < hold.end);
            hold.map(|hold| hold.start)
        };
        let shards = manifest.shards.iter().enumerate();
        let mut order: Vec<_> = shards.filter_map(|(index, shard)| Some((start(shard)?, index))).collect();
        order.sort_unstable();
        let mut whole = Vec::new();
        for (_, index) in order {
            let shard = self.read_shard(manifest, index)?;
            shard.slices().filter(|slice| slice.name == name).for_each(|slice| whole.extend_from_slice(slice.data));
        }
        Ok(whole)
    }
}

impl Bucket {
    /// Checks that every shard exists and has the right size; the cheap half of verification.
    pub async fn check_sizes(&self, manifest: &Manifest) -> Result<(), CheckpointError> {
        let checks: Vec<_> = manifest.shards.iter().map(|entry| self.check_size(entry)).collect();
        stream::iter(checks).buffered(self.options.concurrency).try_collect().await
    }

    async fn check_size(&self, entry: &ShardEntry) -> Result<(), CheckpointError> {
        let path = Path::from(entry.path.as_str());
        match self.objects.head(&path).await {
            Ok(found) if found.size == entry.size => Ok(()),
            Ok(found) => Err(self.damaged(&path, format!("it has {} bytes instead of {}", found.size, entry.size))),
            Err(object_store::Error::NotFound { .. }) => Err(self
                .damaged(&path, "it is missing (ranks on several machines need a store that all of them can access)")),
            Err(e) => Err(self.failed("read", &path, e)),
        }
    }

    /// Reads a shard block by block in order, with bounded memory, and checks its size and SHA-256. The data passed to
    /// `each` can be trusted only if this succeeds.
    pub async fn scan(
        &self,
        entry: &ShardEntry,
        mut each: impl AsyncFnMut(&[u8]) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        self.check_size(entry).await?;
        let path = Path::from(entry.path.as_str());
        let block = self.options.part_bytes;
        let mut blocks = stream::iter((0..entry.size).step_by(block))
            .map(|start| self.objects.get_range(&path, start..entry.size.min(start + block as u64)))
            .buffered(self.options.concurrency);
        let mut hash = Sha256::new();
        while let Some(block) = blocks.next().await {
            let block = block.map_err(|e| self.failed("read", &path, e))?;
            hash.update(&block);
            self.read.fetch_add(block.len() as u64, Ordering::Relaxed);
            each(&block).await?;
        }
        match hex(&hash.finalize()) == entry.sha256 {
            true => Ok(()),
            false => Err(self.damaged(&path, "its SHA-256 differs from the one in the manifest")),
        }
    }
}

/// The start of a safetensors file with one tensor per slice: the length of the header, then the header, padded to 8
/// bytes.
pub(crate) fn header(buffers: &[BufferSlice<'_>]) -> Result<Vec<u8>, String> {
    let mut tensors: Vec<(String, TensorInfo)> = Vec::with_capacity(buffers.len());
    let mut at = 0;
    for BufferSlice { name, range, data } in buffers {
        if data.len() != range.len() {
            return Err(format!("{} values were given for the range {range:?} of {name}", data.len()));
        }
        if tensors.iter().any(|(other, _)| other == name) {
            return Err(format!("{name} was given twice"));
        }
        let end = at + 4 * data.len();
        let info = TensorInfo { dtype: Dtype::F32, shape: vec![data.len()], data_offsets: (at, end) };
        tensors.push((name.to_string(), info));
        at = end;
    }
    let metadata = Metadata::new(None, tensors).map_err(|e| e.to_string())?;
    let mut json = serde_json::to_vec(&metadata).map_err(|e| e.to_string())?;
    json.resize(json.len().next_multiple_of(8), b' ');
    Ok([&(json.len() as u64).to_le_bytes(), json.as_slice()].concat())
}

/// Locates the ranges that the manifest lists for a shard: each with the word at which its values start.
fn locate(words: &[f32], entry: &ShardEntry) -> Result<Vec<(ShardRange, usize)>, String> {
    let bytes = |words: &[f32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let (length, rest) = words.split_at_checked(2).ok_or("it is too short for a safetensors file")?;
    let length = u64::from_le_bytes(bytes(length).try_into().expect("two words are eight bytes"));
    let length = usize::try_from(length).ok().filter(|length| length % 4 == 0).map(|length| length / 4);
    let (json, values) =
        length.and_then(|length| rest.split_at_checked(length)).ok_or("its header has an impossible length")?;
    let metadata: Metadata =
        serde_json::from_slice(&bytes(json)).map_err(|e| format!("its header does not parse: {e}"))?;
    let whole = words.len() as u64 * 4 == entry.size && metadata.data_len() == 4 * values.len();
    if !whole || metadata.tensors().len() != entry.holds.len() {
        return Err("its header does not match its size or the manifest".into());
    }
    let place = |hold: &ShardRange| {
        let info = metadata.info(&hold.buffer).filter(|info| info.dtype == Dtype::F32)?;
        let len = hold.end.checked_sub(hold.start)?;
        let at = info.data_offsets.0;
        (info.shape == [usize::try_from(len).ok()?] && at % 4 == 0)
            .then(|| (hold.clone(), words.len() - values.len() + at / 4))
    };
    let missing = |hold: &ShardRange| format!("it does not hold {}..{} of {}", hold.start, hold.end, hold.buffer);
    entry.holds.iter().map(|hold| place(hold).ok_or_else(|| missing(hold))).collect()
}
