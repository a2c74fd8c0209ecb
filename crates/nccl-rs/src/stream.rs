//! Streams, queues of work for a GPU, and events, points in them.

use std::ffi::{c_int, c_uint, c_void};

use crate::Error;
use crate::cuda::Cuda;

/// `cudaErrorNotReady`.
const NOT_READY: c_int = 600;
/// `cudaStreamNonBlocking`: not ordered by the default stream; `cudaEventDisableTiming`.
const NON_BLOCKING: c_uint = 1;
const DISABLE_TIMING: c_uint = 2;

/// A live stream that is somebody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamHandle(*mut c_void);

// SAFETY: CUDA's streams may be used from any thread.
unsafe impl Send for StreamHandle {}
// SAFETY: as above.
unsafe impl Sync for StreamHandle {}

impl StreamHandle {
    /// The default stream, which libtorch computes on unless told otherwise.
    pub const DEFAULT: Self = Self(std::ptr::null_mut());

    /// A `cudaStream_t`.
    ///
    /// # Safety
    /// It is a stream of the runtime that [`Cuda::load`] finds, and alive as long as the handle is used.
    pub unsafe fn from_raw(stream: *mut c_void) -> Self {
        Self(stream)
    }

    pub(crate) fn raw(self) -> *mut c_void {
        self.0
    }
}

/// A stream of our own: a queue of work for the current GPU, not ordered by the default stream.
#[derive(Debug)]
pub struct Stream {
    cuda: &'static Cuda,
    handle: StreamHandle,
}

impl Stream {
    /// A new stream on the thread's current GPU.
    ///
    /// # Errors
    /// CUDA fails.
    pub fn new(cuda: &'static Cuda) -> Result<Self, Error> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: one handle is written.
        let code = unsafe { (cuda.functions.cudaStreamCreateWithFlags)(&mut raw, NON_BLOCKING) };
        cuda.check("cudaStreamCreateWithFlags", code)?;
        Ok(Self { cuda, handle: StreamHandle(raw) })
    }

    /// The handle, for slices.
    pub fn handle(&self) -> StreamHandle {
        self.handle
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed here only. Work under way is finished first, behind our back.
        let _ = unsafe { (self.cuda.functions.cudaStreamDestroy)(self.handle.0) };
    }
}

/// A point in a stream's work.
///
/// Whoever asks for it or drops it has its GPU as the thread's current one from then on: a thread that has none yet would
/// take the first, and memory there for a context of its own.
#[derive(Debug)]
pub struct Event {
    cuda: &'static Cuda,
    device: usize,
    raw: *mut c_void,
}

// SAFETY: CUDA's events may be used from any thread.
unsafe impl Send for Event {}

impl Event {
    /// An event of this GPU's streams that is not recorded yet.
    ///
    /// # Errors
    /// CUDA fails.
    pub fn new(cuda: &'static Cuda, device: usize) -> Result<Self, Error> {
        cuda.set_device(device)?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: one handle is written.
        let code = unsafe { (cuda.functions.cudaEventCreateWithFlags)(&mut raw, DISABLE_TIMING) };
        cuda.check("cudaEventCreateWithFlags", code)?;
        Ok(Self { cuda, device, raw })
    }

    /// Puts the event behind all that is enqueued on `stream` now.
    ///
    /// # Errors
    /// CUDA fails.
    pub fn record(&self, stream: StreamHandle) -> Result<(), Error> {
        // SAFETY: both are alive: the event is ours, the stream by the contract of its handle.
        let code = unsafe { (self.cuda.functions.cudaEventRecord)(self.raw, stream.0) };
        self.cuda.check("cudaEventRecord", code)
    }

    /// Holds all that is enqueued on `stream` from now on until the event has happened. The event may be dropped.
    ///
    /// # Errors
    /// CUDA fails.
    pub fn make_wait(&self, stream: StreamHandle) -> Result<(), Error> {
        // SAFETY: as in `record`.
        let code = unsafe { (self.cuda.functions.cudaStreamWaitEvent)(stream.0, self.raw, 0) };
        self.cuda.check("cudaStreamWaitEvent", code)
    }

    /// Whether the GPU has come past it; does not wait.
    ///
    /// # Errors
    /// The GPU failed.
    pub fn is_done(&self) -> Result<bool, Error> {
        self.cuda.set_device(self.device)?;
        // SAFETY: the event is ours and alive.
        match unsafe { (self.cuda.functions.cudaEventQuery)(self.raw) } {
            NOT_READY => {
                self.cuda.forget_error();
                Ok(false)
            }
            code => self.cuda.check("cudaEventQuery", code).map(|()| true),
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let _ = self.cuda.set_device(self.device);
        // SAFETY: created in `new`, destroyed here only. CUDA keeps what waits for it.
        let _ = unsafe { (self.cuda.functions.cudaEventDestroy)(self.raw) };
    }
}
