//! GPU memory allocated without libtorch.

use std::ffi::{c_int, c_void};

use crate::Error;
use crate::buffer::{DType, DeviceSlice};
use crate::cuda::Cuda;
use crate::stream::StreamHandle;

/// `cudaMemcpyDefault`: the direction follows from the addresses.
const EITHER_WAY: c_int = 4;

/// GPU memory allocated without libtorch, for tests and benchmarks.
#[derive(Debug)]
pub struct DeviceMemory {
    cuda: &'static Cuda,
    pointer: *mut c_void,
    bytes: usize,
}

impl DeviceMemory {
    /// Allocates uninitialized memory on the thread's current GPU.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new(cuda: &'static Cuda, bytes: usize) -> Result<Self, Error> {
        let mut pointer = std::ptr::null_mut();
        // SAFETY: one pointer is written.
        cuda.check("cudaMalloc", unsafe { (cuda.functions.cudaMalloc)(&mut pointer, bytes) })?;
        Ok(Self { cuda, pointer, bytes })
    }

    /// Copies `from` to its beginning, after the work enqueued on `stream`; waits until done.
    ///
    /// # Errors
    /// If CUDA fails.
    ///
    /// # Panics
    /// If `from` does not fit.
    pub fn upload(&mut self, from: &[u8], stream: StreamHandle) -> Result<(), Error> {
        assert!(from.len() <= self.bytes, "{} bytes do not fit into {}", from.len(), self.bytes);
        // SAFETY: both are valid for `from.len()` bytes, and are borrowed until `copy` has waited.
        unsafe { self.copy(self.pointer, from.as_ptr().cast(), from.len(), stream) }
    }

    /// Copies its beginning to `to`, after the work enqueued on `stream`; waits until done.
    ///
    /// # Errors
    /// If CUDA fails.
    ///
    /// # Panics
    /// If `to` is longer than the memory.
    pub fn download(&self, to: &mut [u8], stream: StreamHandle) -> Result<(), Error> {
        assert!(to.len() <= self.bytes, "{} bytes were requested of {}", to.len(), self.bytes);
        // SAFETY: as in `upload`.
        unsafe { self.copy(to.as_mut_ptr().cast(), self.pointer, to.len(), stream) }
    }

    /// # Safety
    /// `to` and `from` are valid for `bytes` bytes until the call returns.
    unsafe fn copy(
        &self,
        to: *mut c_void,
        from: *const c_void,
        bytes: usize,
        stream: StreamHandle,
    ) -> Result<(), Error> {
        let cuda = &self.cuda.functions;
        // SAFETY: by the contract, and the wait below.
        let code = unsafe { (cuda.cudaMemcpyAsync)(to, from, bytes, EITHER_WAY, stream.raw()) };
        self.cuda.check("cudaMemcpyAsync", code)?;
        // SAFETY: the stream is alive by the contract of its handle.
        self.cuda.check("cudaStreamSynchronize", unsafe { (cuda.cudaStreamSynchronize)(stream.raw()) })
    }

    /// The whole memory as a slice for a collective.
    pub fn slice(&mut self, dtype: DType, stream: StreamHandle) -> DeviceSlice<'_> {
        // SAFETY: the memory is ours for `bytes` bytes; `cudaFree` waits for all work on the GPU before it releases.
        unsafe { DeviceSlice::from_raw_parts(self.pointer, self.bytes / dtype.size(), dtype, stream) }
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`, freed only here; waits for the GPU.
        let _ = unsafe { (self.cuda.functions.cudaFree)(self.pointer) };
    }
}
