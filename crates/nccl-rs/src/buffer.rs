//! Values in GPU memory, as arguments of a collective.

use std::ffi::c_void;
use std::marker::PhantomData;

use crate::stream::StreamHandle;

/// The element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    /// IEEE 754 single precision.
    F32,
    /// The upper half of an f32: 8 bits of exponent, 7 of fraction.
    Bf16,
}

impl DType {
    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    /// `ncclDataType_t`.
    pub(crate) fn code(self) -> i32 {
        match self {
            Self::F32 => 7,
            Self::Bf16 => 9,
        }
    }
}

/// How an all-reduce combines the ranks' values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// x_0 + x_1 + ... + x_{size-1}
    Sum,
    /// The sum, divided by the number of ranks.
    Mean,
}

impl Reduction {
    /// `ncclRedOp_t`.
    pub(crate) fn code(self) -> i32 {
        match self {
            Self::Sum => 0,
            Self::Mean => 4,
        }
    }
}

/// A contiguous slice of one GPU's memory, and the stream that computes its values.
#[derive(Debug)]
pub struct DeviceSlice<'a> {
    pub(crate) pointer: *mut c_void,
    pub(crate) len: usize,
    pub(crate) dtype: DType,
    pub(crate) stream: StreamHandle,
    memory: PhantomData<&'a mut [u8]>,
}

impl DeviceSlice<'_> {
    /// `len` elements starting at `pointer`.
    ///
    /// # Safety
    /// - `pointer` is valid for reads and writes of `len * dtype.size()` bytes by the GPU of the communicator that the
    ///   slice is given to, and no other slice of the same call overlaps them.
    /// - All work that accesses these bytes, and their release, is ordered on `stream`, which is alive: a collective
    ///   continues after the call has returned, and only `stream` waits for it, once
    ///   [`Communicator::make_wait`](crate::Communicator::make_wait) has been called, before which the bytes must not
    ///   be accessed. Memory from libtorch's allocator is ordered in this way on libtorch's current stream.
    pub unsafe fn from_raw_parts(pointer: *mut c_void, len: usize, dtype: DType, stream: StreamHandle) -> Self {
        Self { pointer, len, dtype, stream, memory: PhantomData }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The stream that computes the values.
    pub fn stream(&self) -> StreamHandle {
        self.stream
    }

    /// The size in bytes.
    pub fn bytes(&self) -> usize {
        self.len * self.dtype.size()
    }
}
