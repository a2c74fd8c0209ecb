//! A tensor in the file.

use std::borrow::Cow;

use crate::PickleError;
use crate::dtype::Dtype;
use crate::object::View;

/// The bytes of a storage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region<'a> {
    pub(crate) bytes: &'a [u8],
    /// Their CRC-32, if the file has one.
    pub(crate) checksum: Option<u32>,
}

/// A tensor in the file, whose view was checked to lie within its storage.
#[derive(Clone, Debug)]
pub struct Tensor<'a> {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Bytes between adjacent elements in each dimension.
    strides: Vec<usize>,
    first: usize,
    region: Region<'a>,
}

impl<'a> Tensor<'a> {
    pub(crate) fn new(name: &str, view: &View, region: Region<'a>) -> Result<Self, PickleError> {
        let size = view.storage.dtype.size() as u64;
        let beyond = || PickleError::damaged(format!("tensor {name} extends beyond its storage"));
        let available = region.bytes.len() as u64 / size;
        // One past the last element, if there are any.
        let mut end = Some(view.offset);
        let mut count = Some(1u64);
        for (length, stride) in view.shape.iter().zip(&view.strides) {
            count = count.and_then(|count| count.checked_mul(*length));
            let reach = length.saturating_sub(1).checked_mul(*stride);
            end = end.and_then(|end| end.checked_add(reach?));
        }
        let count = if view.shape.contains(&0) { 0 } else { count.ok_or_else(beyond)? };
        let end = if count == 0 { 0 } else { end.and_then(|end| end.checked_add(1)).ok_or_else(beyond)? };
        if end > available {
            return Err(beyond());
        }
        if count > available {
            let why = format!("tensor {name} has more elements than its storage: it repeats some of them");
            return Err(PickleError::Unsupported(why));
        }
        // All of these are at most the region's length, unless there are no elements.
        let bytes = |elements: u64| elements.saturating_mul(size) as usize;
        Ok(Self {
            name: name.into(),
            dtype: view.storage.dtype,
            shape: view.shape.iter().map(|length| *length as usize).collect(),
            strides: view.strides.iter().map(|stride| bytes(*stride)).collect(),
            first: if count == 0 { 0 } else { bytes(view.offset) },
            region,
        })
    }

    /// Its element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its elements, little-endian and row-major.
    ///
    /// # Errors
    /// If the data does not match the file's checksum.
    pub fn bytes(&self) -> Result<Cow<'a, [u8]>, PickleError> {
        if self.region.checksum.is_some_and(|sum| crc32fast::hash(self.region.bytes) != sum) {
            return Err(PickleError::damaged(format!("the data of {} does not match its checksum", self.name)));
        }
        let size = self.dtype.size();
        if self.shape.contains(&0) {
            return Ok(Cow::Borrowed(&[]));
        }
        // The strides of a contiguous tensor; those of dimensions of length 1 do not matter.
        let mut dense = size;
        let mut is_dense = true;
        for (length, stride) in self.shape.iter().zip(&self.strides).rev() {
            is_dense &= *length == 1 || *stride == dense;
            dense *= length;
        }
        if is_dense {
            return Ok(Cow::Borrowed(&self.region.bytes[self.first..self.first + dense]));
        }
        let mut gathered = Vec::with_capacity(dense);
        let mut index = vec![0usize; self.shape.len()];
        while gathered.len() < dense {
            let at = self.first + index.iter().zip(&self.strides).map(|(i, stride)| i * stride).sum::<usize>();
            gathered.extend_from_slice(&self.region.bytes[at..at + size]);
            for (i, length) in index.iter_mut().zip(&self.shape).rev() {
                *i += 1;
                if *i < *length {
                    break;
                }
                *i = 0;
            }
        }
        Ok(Cow::Owned(gathered))
    }
}
