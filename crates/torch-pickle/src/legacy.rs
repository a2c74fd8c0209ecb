//! The layout before torch 1.6: five pickles (a magic number, a version, machine information, the object, the keys of
//! its storages), then the storages, each preceded by its number of elements.

use std::collections::{BTreeMap, HashMap};

use crate::object::Object;
use crate::reader::Reader;
use crate::tensor::{Region, Tensor};
use crate::{PickleError, machine, state_dict};

/// PROTO 2, and an integer of ten bytes.
const START: [u8; 4] = [0x80, 2, 0x8a, 10];
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

pub(crate) fn recognises(bytes: &[u8]) -> bool {
    bytes.strip_prefix(&START).is_some_and(|rest| rest.starts_with(&MAGIC))
}

pub(crate) fn tensors(bytes: &[u8]) -> Result<BTreeMap<String, Tensor<'_>>, PickleError> {
    let mut rest = bytes;
    let mut next = || {
        let (objects, length) = machine::read(rest)?;
        rest = &rest[length..];
        Ok::<_, PickleError>(objects)
    };
    for _ in ["magic number", "version"] {
        next()?;
    }
    let machine_info = next()?;
    if let Object::Dict(facts) = machine_info.root() {
        let is_big = |(key, value): &(u32, u32)| {
            machine_info.text(*key) == Some("little_endian") && matches!(machine_info.get(*value), Object::Bool(false))
        };
        if facts.iter().any(is_big) {
            return Err(PickleError::Unsupported("it was written on a big-endian machine".into()));
        }
    }
    let objects = next()?;
    let keys = next()?;
    let kinds: HashMap<&str, _> = objects
        .table
        .iter()
        .filter_map(|object| match object {
            Object::Storage(storage) => Some((objects.text(storage.key)?, storage.dtype)),
            _ => None,
        })
        .collect();
    let mut regions = HashMap::new();
    let mut storages = Reader::new(rest);
    if let Object::List(order) = keys.root() {
        for key in order {
            let known = keys.text(*key).and_then(|key| Some((key, *kinds.get(key)?)));
            let (key, dtype) =
                known.ok_or_else(|| PickleError::damaged("it has a storage that does not belong to any tensor"))?;
            let length = storages.u64()?.saturating_mul(dtype.size() as u64);
            let bytes = storages.take(usize::try_from(length).unwrap_or(usize::MAX))?;
            regions.insert(key, Region { bytes, checksum: None });
        }
    }
    state_dict::tensors(&objects, |key| {
        regions.get(key).copied().ok_or_else(|| PickleError::damaged("a storage is missing"))
    })
}
