//! Whether work can be recorded as a CUDA graph.

use std::ffi::c_int;
use std::ptr::null_mut;

use crate::cuda::Cuda;
use crate::{Error, StreamHandle};

/// `cudaStreamCaptureModeThreadLocal`: what other threads do meanwhile does not matter.
const THREAD_LOCAL: c_int = 1;

impl Cuda {
    /// Records the work that `body` enqueues on `stream`, and on streams that wait for it, and throws the recording away:
    /// the GPU does nothing of it.
    ///
    /// # Errors
    /// The work cannot be recorded: `body` waited for the GPU or allocated memory, or a stream that waited for `stream` was
    /// not waited for in turn.
    pub fn capture(&self, stream: StreamHandle, body: impl FnOnce()) -> Result<(), Error> {
        // SAFETY: the stream is alive by the contract of its handle.
        let began = unsafe { (self.functions.cudaStreamBeginCapture)(stream.raw(), THREAD_LOCAL) };
        self.check("cudaStreamBeginCapture", began)?;
        body();
        let mut graph = null_mut();
        // SAFETY: as above; one handle is written.
        let ended = unsafe { (self.functions.cudaStreamEndCapture)(stream.raw(), &mut graph) };
        self.check("cudaStreamEndCapture", ended)?;
        // SAFETY: the graph is ours, and not used afterwards.
        self.check("cudaGraphDestroy", unsafe { (self.functions.cudaGraphDestroy)(graph) })
    }
}
