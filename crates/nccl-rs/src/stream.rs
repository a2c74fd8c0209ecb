//! Streams (queues of work for a GPU) and events (points in a stream's work).

use std::ffi::{c_int, c_uint, c_void};
use std::time::Duration;

use crate::Error;
use crate::cuda::Cuda;

/// `cudaErrorNotReady`.
const NOT_READY: c_int = 600;
/// `cudaStreamNonBlocking`: not synchronized with the default stream; `cudaEventDisableTiming`, and no flag at all.
const NON_BLOCKING: c_uint = 1;
const DISABLE_TIMING: c_uint = 2;
const TIMING: c_uint = 0;

/// A live stream owned elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamHandle(*mut c_void);

// SAFETY: CUDA streams may be used from any thread.
unsafe impl Send for StreamHandle {}
// SAFETY: as above.
unsafe impl Sync for StreamHandle {}

impl StreamHandle {
    /// The default stream, on which libtorch computes unless configured otherwise.
    pub const DEFAULT: Self = Self(std::ptr::null_mut());

    /// A `cudaStream_t`.
    ///
    /// # Safety
    /// The stream belongs to the runtime that [`Cuda::load`] finds, and stays alive as long as the handle is used.
    pub unsafe fn from_raw(stream: *mut c_void) -> Self {
        Self(stream)
    }

    pub(crate) fn raw(self) -> *mut c_void {
        self.0
    }
}

/// An owned stream: a queue of work for the current GPU, not synchronized with the default stream.
#[derive(Debug)]
pub struct Stream {
    cuda: &'static Cuda,
    handle: StreamHandle,
}

impl Stream {
    /// A new stream on the thread's current GPU.
    ///
    /// # Errors
    /// If CUDA fails.
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
        // SAFETY: created in `new`, destroyed only here. CUDA finishes work in progress first.
        let _ = unsafe { (self.cuda.functions.cudaStreamDestroy)(self.handle.0) };
    }
}

/// A point in a stream's work.
///
/// Querying or dropping it makes its GPU the calling thread's current one: a thread without a current GPU would
/// otherwise use the first one and allocate memory there for a context.
#[derive(Debug)]
pub struct Event {
    cuda: &'static Cuda,
    device: usize,
    raw: *mut c_void,
}

// SAFETY: CUDA's events may be used from any thread.
unsafe impl Send for Event {}

impl Event {
    /// An event for this GPU's streams, not recorded yet.
    ///
    /// # Errors
    /// If CUDA fails.
    pub fn new(cuda: &'static Cuda, device: usize) -> Result<Self, Error> {
        Self::with(cuda, device, DISABLE_TIMING)
    }

    /// An event that records a timestamp, for [`since`](Self::since).
    ///
    /// # Errors
    /// If CUDA fails.
    pub fn timing(cuda: &'static Cuda, device: usize) -> Result<Self, Error> {
        Self::with(cuda, device, TIMING)
    }

    fn with(cuda: &'static Cuda, device: usize, flags: c_uint) -> Result<Self, Error> {
        cuda.set_device(device)?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: one handle is written.
        let code = unsafe { (cuda.functions.cudaEventCreateWithFlags)(&mut raw, flags) };
        cuda.check("cudaEventCreateWithFlags", code)?;
        Ok(Self { cuda, device, raw })
    }

    /// The time between `earlier` and this event on the GPU, which has passed both; they were created by
    /// [`timing`](Self::timing).
    ///
    /// # Errors
    /// If an event was not recorded, was not passed yet or has no timestamp, or the GPU failed.
    pub fn since(&self, earlier: &Self) -> Result<Duration, Error> {
        let mut milliseconds = 0f32;
        // SAFETY: both events are alive, and one float is written.
        let code = unsafe { (self.cuda.functions.cudaEventElapsedTime)(&mut milliseconds, earlier.raw, self.raw) };
        self.cuda.check("cudaEventElapsedTime", code)?;
        Ok(Duration::from_secs_f64(f64::from(milliseconds).max(0.0) / 1e3))
    }

    /// Records the event after all work currently enqueued on `stream`.
    ///
    /// # Errors
    /// If CUDA fails.
    pub fn record(&self, stream: StreamHandle) -> Result<(), Error> {
        // SAFETY: both are alive: the event is ours, the stream by the contract of its handle.
        let code = unsafe { (self.cuda.functions.cudaEventRecord)(self.raw, stream.0) };
        self.cuda.check("cudaEventRecord", code)
    }

    /// Makes all later work on `stream` wait for the event. The event may be dropped afterwards.
    ///
    /// # Errors
    /// If CUDA fails.
    pub fn make_wait(&self, stream: StreamHandle) -> Result<(), Error> {
        // SAFETY: as in `record`.
        let code = unsafe { (self.cuda.functions.cudaStreamWaitEvent)(stream.0, self.raw, 0) };
        self.cuda.check("cudaStreamWaitEvent", code)
    }

    /// Whether the GPU has passed the event; does not block.
    ///
    /// # Errors
    /// If the GPU failed.
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
        // SAFETY: created in `new`, destroyed only here. CUDA keeps it as long as work waits for it.
        let _ = unsafe { (self.cuda.functions.cudaEventDestroy)(self.raw) };
    }
}
