//! Ranks connected by NCCL, each with one GPU, and their collectives.

use std::ffi::c_void;
use std::sync::{Mutex, PoisonError, RwLock};

use crate::{Cuda, DeviceSlice, Error, Event, Nccl, Reduction, Stream, StreamHandle, UniqueId};

/// One rank's part of a communicator, on one GPU, with its own stream.
///
/// All ranks make the same calls in the same order, with slices of the same lengths and types. Calls from several
/// threads exclude each other. If it is dropped unfinished, it is aborted, so dropping never waits for peers.
pub struct Communicator {
    nccl: &'static Nccl,
    cuda: &'static Cuda,
    device: usize,
    stream: Stream,
    /// A collective consists of several calls, which must not interleave with those of another thread.
    turn: Mutex<()>,
    /// `None` when finished. Read-locked while in use: NCCL allows another thread to poll for errors meanwhile.
    raw: RwLock<Option<Raw>>,
}

struct Raw(*mut c_void);

// SAFETY: NCCL communicators are not tied to a thread. Collectives are serialized by `turn`; polling for asynchronous
// errors is allowed concurrently; finishing takes the write lock.
unsafe impl Send for Raw {}
// SAFETY: as above.
unsafe impl Sync for Raw {}

impl Communicator {
    /// Connects `size` ranks, this one being `rank`, with GPU `device` of this process; waits for all of them.
    ///
    /// # Errors
    /// If CUDA or NCCL fails: no such device, two ranks on one GPU, unreachable peers.
    pub fn new(
        nccl: &'static Nccl,
        cuda: &'static Cuda,
        device: usize,
        rank: usize,
        size: usize,
        id: &UniqueId,
    ) -> Result<Self, Error> {
        cuda.set_device(device)?;
        let stream = Stream::new(cuda)?;
        let raw = nccl.init(rank, size, id)?;
        Ok(Self { nccl, cuda, device, stream, turn: Mutex::new(()), raw: RwLock::new(Some(Raw(raw))) })
    }

    /// Enqueues an all-reduce: replaces each element by its sum or mean over all ranks, several slices as one operation.
    /// The streams of the slices do not wait for the result until [`make_wait`](Self::make_wait); see the
    /// [crate](crate#order-on-the-gpu).
    ///
    /// # Errors
    /// If NCCL or CUDA fails, or the communicator is finished.
    pub fn all_reduce(&self, slices: &mut [DeviceSlice<'_>], reduction: Reduction) -> Result<Pending, Error> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let raw = self.raw.read().unwrap_or_else(PoisonError::into_inner);
        let comm = raw.as_ref().ok_or(Error::Finished)?.0;
        self.cuda.set_device(self.device)?; // NCCL uses the calling thread's current device
        let ours = self.stream.handle();
        for stream in streams(slices) {
            let computed = Event::new(self.cuda, self.device)?;
            computed.record(stream)?;
            computed.make_wait(ours)?;
        }
        self.nccl.group(|| {
            slices.iter_mut().try_for_each(|slice| {
                let DeviceSlice { pointer, len, dtype, .. } = *slice;
                // SAFETY: the handles are alive; the memory is valid on the GPU by the contract of DeviceSlice, whose
                // stream waits for the operation before it accesses that memory.
                unsafe { self.nccl.all_reduce(pointer, len, dtype.code(), reduction.code(), comm, ours.raw()) }
            })
        })?;
        let done = Event::new(self.cuda, self.device)?;
        done.record(ours)?;
        Ok(Pending(done))
    }

    /// Makes all later work on `stream` wait for every collective enqueued so far.
    ///
    /// # Errors
    /// If CUDA fails.
    pub fn make_wait(&self, stream: StreamHandle) -> Result<(), Error> {
        let done = Event::new(self.cuda, self.device)?;
        done.record(self.stream.handle())?;
        done.make_wait(stream)
    }

    /// Checks for errors since the last collective returned: a peer that died, a network failure.
    ///
    /// Must be called from a different thread than the one that waits for a result.
    ///
    /// # Errors
    /// Such an error, or [`Error::Finished`].
    pub fn async_error(&self) -> Result<(), Error> {
        let raw = self.raw.read().unwrap_or_else(PoisonError::into_inner);
        let comm = raw.as_ref().ok_or(Error::Finished)?.0;
        // SAFETY: the read lock keeps it alive.
        unsafe { self.nccl.async_error(comm) }
    }

    /// Waits for all enqueued operations, on all ranks, and ends the communicator. Every rank must call it.
    ///
    /// # Errors
    /// If NCCL fails, or the communicator is already finished.
    pub fn finish(&self) -> Result<(), Error> {
        let raw = self.raw.write().unwrap_or_else(PoisonError::into_inner).take();
        // SAFETY: it was alive until now and is no longer reachable.
        unsafe { self.nccl.finish(raw.ok_or(Error::Finished)?.0) }
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        if let Some(raw) = self.raw.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            // SAFETY: it was alive until now and is no longer reachable.
            unsafe { self.nccl.abort(raw.0) };
        }
    }
}

/// The distinct streams of the slices.
fn streams(slices: &[DeviceSlice<'_>]) -> Vec<StreamHandle> {
    let mut streams: Vec<StreamHandle> = Vec::new();
    for slice in slices {
        if !streams.contains(&slice.stream) {
            streams.push(slice.stream);
        }
    }
    streams
}

/// A collective that may still be in progress on the GPU.
#[derive(Debug)]
pub struct Pending(Event);

impl Pending {
    /// Whether the GPU has finished it; does not block.
    ///
    /// # Errors
    /// If the GPU failed.
    pub fn is_done(&self) -> Result<bool, Error> {
        self.0.is_done()
    }
}
