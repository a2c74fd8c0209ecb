//! Numbers in a GPU's memory, as a collective takes them.

use std::ffi::c_void;
use std::marker::PhantomData;

use crate::stream::StreamHandle;

/// What the numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// The upper half of a single: 8 bits of exponent, 7 of fraction.
    Bf16,
}

impl DType {
    /// Bytes of one number.
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

/// How an all-reduce combines the ranks' numbers.
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

/// Contiguous numbers in the memory of one GPU, and the stream on which they are computed.
#[derive(Debug)]
pub struct DeviceSlice<'a> {
    pub(crate) pointer: *mut c_void,
    pub(crate) len: usize,
    pub(crate) dtype: DType,
    pub(crate) stream: StreamHandle,
    memory: PhantomData<&'a mut [u8]>,
}

impl DeviceSlice<'_> {
    /// `len` numbers from `pointer` on.
    ///
    /// # Safety
    /// - `pointer` is valid for reads and writes of `len * dtype.size()` bytes by the GPU of the communicator that the
    ///   slice is given to, and no other slice of the same call overlaps them.
    /// - All work that touches these bytes, and their release, is ordered on `stream`, which is alive: a collective
    ///   goes on after the call has returned, and `stream` alone waits for it: at once, or, after
    ///   [`Communicator::all_reduce_aside`](crate::Communicator::all_reduce_aside), from
    ///   [`Communicator::hold`](crate::Communicator::hold) on. Memory from libtorch's allocator is so ordered on
    ///   libtorch's current stream.
    pub unsafe fn from_raw_parts(pointer: *mut c_void, len: usize, dtype: DType, stream: StreamHandle) -> Self {
        Self { pointer, len, dtype, stream, memory: PhantomData }
    }

    /// The number of numbers.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The stream on which they are computed.
    pub fn stream(&self) -> StreamHandle {
        self.stream
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> usize {
        self.len * self.dtype.size()
    }
}
