//! Shards: one rank's ranges of every buffer, as one safetensors file whose values follow the header without gaps.

use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use crate::{ShardEntry, ShardRange};

/// Upper limit on the size of a header, so that a wrong manifest cannot exhaust memory.
const HEADER_LIMIT: u64 = 64 << 20;

/// The start of a safetensors file with these tensors, given by name and number of values: the length of the header,
/// then the header, padded to 8 bytes. The values follow in the same order.
pub(crate) fn header(given: &[(&str, usize)]) -> Result<Vec<u8>, String> {
    let mut tensors: Vec<(String, TensorInfo)> = Vec::with_capacity(given.len());
    let mut at = 0;
    for &(name, len) in given {
        if tensors.iter().any(|(other, _)| other == name) {
            return Err(format!("{name} was given twice"));
        }
        let end = at + 4 * len;
        let info = TensorInfo { dtype: Dtype::F32, shape: vec![len], data_offsets: (at, end) };
        tensors.push((name.into(), info));
        at = end;
    }
    let metadata = Metadata::new(None, tensors).map_err(|e| e.to_string())?;
    let mut json = serde_json::to_vec(&metadata).map_err(|e| e.to_string())?;
    json.resize(json.len().next_multiple_of(8), b' ');
    Ok([&(json.len() as u64).to_le_bytes(), json.as_slice()].concat())
}

/// The number of bytes before the values of a shard, if the ranges that the manifest lists are all that follows.
pub(crate) fn header_len(entry: &ShardEntry) -> Result<usize, String> {
    let add = |sum: u64, hold: &ShardRange| sum.checked_add(hold.end.checked_sub(hold.start)?.checked_mul(4)?);
    let values = entry.holds.iter().try_fold(0, add);
    let len = values.and_then(|values| entry.size.checked_sub(values)).filter(|len| *len <= HEADER_LIMIT);
    len.map(|len| len as usize).ok_or_else(|| "its size does not match the ranges in the manifest".into())
}

/// Checks that the start of a shard describes the ranges that the manifest lists, in that order and without gaps, which
/// is how they have been read.
pub(crate) fn check_header(start: &[u8], entry: &ShardEntry) -> Result<(), String> {
    let (len, json) = start.split_first_chunk().ok_or("it is too short for a safetensors file")?;
    if u64::from_le_bytes(*len) != json.len() as u64 {
        return Err("its header has an impossible length".into());
    }
    let metadata: Metadata = serde_json::from_slice(json).map_err(|e| format!("its header does not parse: {e}"))?;
    if metadata.tensors().len() != entry.holds.len() {
        return Err("its header does not match the manifest".into());
    }
    let mut at = 0;
    for ShardRange { buffer, start, end } in &entry.holds {
        let len = (end - start) as usize;
        let next = at + 4 * len;
        let info = metadata.info(buffer);
        if info.is_none_or(|i| i.dtype != Dtype::F32 || i.shape != [len] || i.data_offsets != (at, next)) {
            return Err(format!("it does not hold {start}..{end} of {buffer}"));
        }
        at = next;
    }
    Ok(())
}
