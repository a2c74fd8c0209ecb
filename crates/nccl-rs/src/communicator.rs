//! Ranks joined by NCCL, each with a GPU, and what they do together.

use std::ffi::c_void;
use std::sync::{Mutex, PoisonError, RwLock};

use crate::{Cuda, DeviceSlice, Error, Event, Nccl, Reduction, Stream, StreamHandle, UniqueId};

/// One rank's end of a communicator, on one GPU, with a stream of its own.
///
/// All ranks make the same calls in the same order, with slices of the same lengths and types. Calls from several
/// threads wait for one another. Dropped unfinished, it is aborted, so that dropping never waits for peers.
pub struct Communicator {
    nccl: &'static Nccl,
    cuda: &'static Cuda,
    device: usize,
    stream: Stream,
    /// A collective is several calls, which those of another thread must not come between.
    turn: Mutex<()>,
    /// `None` when finished. Shared while it is used: NCCL lets another thread ask for errors meanwhile.
    raw: RwLock<Option<Raw>>,
}

struct Raw(*mut c_void);

// SAFETY: NCCL's communicators belong to no thread. Collectives are serialized by `turn`; asking for asynchronous errors
// is allowed beside them; finishing takes the lock alone.
unsafe impl Send for Raw {}
// SAFETY: as above.
unsafe impl Sync for Raw {}

impl Communicator {
    /// Joins `size` ranks as number `rank`, with GPU `device` of this process; waits for all of them.
    ///
    /// # Errors
    /// CUDA or NCCL refuses: no such device, two ranks on one GPU, peers out of reach.
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

    /// Replaces each number by its sum or mean over all ranks; several slices as one operation. See the
    /// [crate](crate#order-on-the-gpu) for what waits for what.
    ///
    /// # Errors
    /// NCCL or CUDA fails, or the communicator is finished.
    pub fn all_reduce(&self, slices: &mut [DeviceSlice<'_>], reduction: Reduction) -> Result<Pending, Error> {
        let pending = self.all_reduce_aside(slices, reduction)?;
        self.hold_all(slices)?;
        Ok(pending)
    }

    /// As [`Communicator::all_reduce`], but the streams of the slices go on meanwhile, with work on other memory: until
    /// [`Communicator::hold`] they do not wait for the result.
    ///
    /// # Errors
    /// NCCL or CUDA fails, or the communicator is finished.
    pub fn all_reduce_aside(&self, slices: &mut [DeviceSlice<'_>], reduction: Reduction) -> Result<Pending, Error> {
        self.enqueue(slices, |slice, comm, stream| {
            let DeviceSlice { pointer, len, dtype, .. } = *slice;
            // SAFETY: `enqueue` passes live handles; the memory is the GPU's by the contract of DeviceSlice, whose stream
            // waits for the operation before it touches that memory.
            unsafe { self.nccl.all_reduce(pointer, len, dtype.code(), reduction.code(), comm, stream) }
        })
    }

    /// Holds all that is enqueued on `stream` from now on until every collective enqueued so far is done.
    ///
    /// # Errors
    /// CUDA fails.
    pub fn hold(&self, stream: StreamHandle) -> Result<(), Error> {
        let done = Event::new(self.cuda, self.device)?;
        done.record(self.stream.handle())?;
        done.hold(stream)
    }

    /// Replaces the numbers on every rank by those of `root`; otherwise as [`Communicator::all_reduce`].
    ///
    /// # Errors
    /// NCCL or CUDA fails, or the communicator is finished.
    pub fn broadcast(&self, slices: &mut [DeviceSlice<'_>], root: usize) -> Result<Pending, Error> {
        let pending = self.enqueue(slices, |slice, comm, stream| {
            let DeviceSlice { pointer, len, dtype, .. } = *slice;
            // SAFETY: as in `all_reduce_aside`.
            unsafe { self.nccl.broadcast(pointer, len, dtype.code(), root, comm, stream) }
        })?;
        self.hold_all(slices)?;
        Ok(pending)
    }

    fn enqueue(
        &self,
        slices: &mut [DeviceSlice<'_>],
        call: impl Fn(&mut DeviceSlice<'_>, *mut c_void, *mut c_void) -> Result<(), Error>,
    ) -> Result<Pending, Error> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let raw = self.raw.read().unwrap_or_else(PoisonError::into_inner);
        let comm = raw.as_ref().ok_or(Error::Finished)?.0;
        self.cuda.set_device(self.device)?; // each thread has a current one, on which NCCL works
        let ours = self.stream.handle();
        for stream in streams(slices) {
            let computed = Event::new(self.cuda, self.device)?;
            computed.record(stream)?;
            computed.hold(ours)?;
        }
        self.nccl.group(|| slices.iter_mut().try_for_each(|slice| call(slice, comm, ours.raw())))?;
        let done = Event::new(self.cuda, self.device)?;
        done.record(ours)?;
        Ok(Pending(done))
    }

    fn hold_all(&self, slices: &[DeviceSlice<'_>]) -> Result<(), Error> {
        streams(slices).into_iter().try_for_each(|stream| self.hold(stream))
    }

    /// What went wrong since the last collective returned: a peer that died, a network that broke.
    ///
    /// To be asked from another thread than the one that waits for a result.
    ///
    /// # Errors
    /// Such a failure, or [`Error::Finished`].
    pub fn async_error(&self) -> Result<(), Error> {
        let raw = self.raw.read().unwrap_or_else(PoisonError::into_inner);
        let comm = raw.as_ref().ok_or(Error::Finished)?.0;
        // SAFETY: the read lock keeps it alive.
        unsafe { self.nccl.async_error(comm) }
    }

    /// Waits for all that was enqueued, on all ranks, and ends the communicator. Every rank calls it.
    ///
    /// # Errors
    /// NCCL fails, or the communicator was finished before.
    pub fn finish(&self) -> Result<(), Error> {
        let raw = self.raw.write().unwrap_or_else(PoisonError::into_inner).take();
        // SAFETY: it was alive until now, and nobody can reach it any more.
        unsafe { self.nccl.finish(raw.ok_or(Error::Finished)?.0) }
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        if let Some(raw) = self.raw.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            // SAFETY: it was alive until now, and nobody can reach it any more.
            unsafe { self.nccl.abort(raw.0) };
        }
    }
}

/// The streams of slices, each once.
fn streams(slices: &[DeviceSlice<'_>]) -> Vec<StreamHandle> {
    let mut streams: Vec<StreamHandle> = Vec::new();
    for slice in slices {
        if !streams.contains(&slice.stream) {
            streams.push(slice.stream);
        }
    }
    streams
}

/// A collective that may still be under way on the GPU.
#[derive(Debug)]
pub struct Pending(Event);

impl Pending {
    /// Whether the GPU is through with it; does not wait.
    ///
    /// # Errors
    /// The GPU failed.
    pub fn is_done(&self) -> Result<bool, Error> {
        self.0.is_done()
    }
}
