//! The collectives of ranks with a GPU each: device memory over NCCL, all else over the world's own.

use std::fmt::Display;
use std::mem;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nccl_rs::{Communicator, Cuda, DeviceSlice, Error, Pending, Reduction, StreamHandle, UniqueId};

use crate::watch::Watch;
use crate::{Bucket, Buffer, Collective, Reduce, abort};

/// How often the GPU is asked whether an operation is done. Nobody waits for the answer but the watchdog.
const POLL: Duration = Duration::from_millis(5);

/// How often NCCL is asked for errors while nothing is under way.
const IDLE_POLL: Duration = Duration::from_secs(1);

pub(crate) struct Nccl {
    host: Arc<dyn Collective>,
    communicator: Arc<Communicator>,
    watch: Arc<Watch>,
    follower: Mutex<Option<Follower>>,
    /// The streams that do not wait yet for buckets averaged.
    unsettled: Mutex<Vec<StreamHandle>>,
}

/// The thread that sees operations through to their ends, and the way to hand them over.
struct Follower {
    under_way: Sender<(String, Pending)>,
    thread: JoinHandle<()>,
}

impl Nccl {
    /// Joins the ranks of `host`, each with its `device`; `id` is the same on all. Waits for all of them.
    pub(crate) fn connect(
        host: Arc<dyn Collective>,
        watch: Arc<Watch>,
        (nccl, cuda, device): (&'static nccl_rs::Nccl, &'static Cuda, usize),
        id: &UniqueId,
    ) -> Result<Self, Error> {
        let communicator = {
            let _entered = watch.enter("NCCL's start");
            Arc::new(Communicator::new(nccl, cuda, device, host.rank(), host.size(), id)?)
        };
        let (under_way, receiver) = channel();
        let (theirs, watched) = (Arc::clone(&communicator), Arc::clone(&watch));
        let thread = thread::Builder::new()
            .name("nccl".into())
            .spawn(move || follow(&receiver, &theirs, &watched))
            .expect("the system starts one more thread");
        let follower = Mutex::new(Some(Follower { under_way, thread }));
        Ok(Self { host, communicator, watch, follower, unsettled: Mutex::default() })
    }

    /// Sees the last operations through and ends the communicator, together with all ranks.
    pub(crate) fn finish(&self) {
        let follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Follower { under_way, thread }) = follower {
            drop(under_way);
            // It has told of its own trouble, if it had any.
            let _ = thread.join();
        }
        self.communicator.finish().unwrap_or_else(|error| fail(&error));
    }

    fn enqueue(
        &self,
        operation: impl Display,
        slices: &mut [DeviceSlice<'_>],
        call: impl FnOnce(&mut [DeviceSlice<'_>]) -> Result<Pending, Error>,
    ) {
        if slices.is_empty() {
            return;
        }
        let operation = operation.to_string();
        let _entered = self.watch.enter(&operation); // NCCL's first operation waits for the peers while it connects
        let pending = call(slices).unwrap_or_else(|error| fail(&error));
        if let Some(follower) = &*self.follower.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = follower.under_way.send((operation, pending)); // received as long as we are there
        }
    }
}

/// Sees each operation through to its end on the GPU, under the watchdog's eyes, and asks for errors meanwhile.
fn follow(under_way: &Receiver<(String, Pending)>, communicator: &Communicator, watch: &Watch) {
    let check = || {
        communicator.async_error().or_else(|error| match error {
            Error::Finished => Ok(()),
            error => Err(error),
        })
    };
    let see_through = |pending: &Pending| {
        while !pending.is_done()? {
            check()?;
            thread::sleep(POLL);
        }
        check() // the operation may have ended because of an error
    };
    loop {
        let followed = match under_way.recv_timeout(IDLE_POLL) {
            Ok((operation, pending)) => {
                let _entered = watch.enter(operation);
                see_through(&pending)
            }
            Err(RecvTimeoutError::Timeout) => check(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        followed.unwrap_or_else(|error| fail(&error));
    }
}

/// As with MPI, no failure of a collective comes back: the run ends.
fn fail(error: &Error) -> ! {
    abort(1, &error.to_string())
}

/// The buffers on the host, and those on the device.
fn sort(buffers: Vec<Buffer<'_>>) -> (Vec<&mut [f32]>, Vec<DeviceSlice<'_>>) {
    let (mut host, mut device) = (Vec::new(), Vec::new());
    for buffer in buffers {
        match buffer {
            Buffer::Host(values) => host.push(values),
            Buffer::Device(slice) => device.push(slice),
        }
    }
    (host, device)
}

impl Collective for Nccl {
    fn rank(&self) -> usize {
        self.host.rank()
    }

    fn size(&self) -> usize {
        self.host.size()
    }

    fn all_reduce(&self, values: &mut [f32], reduce: Reduce) {
        self.host.all_reduce(values, reduce);
    }

    fn sum_bucket(&self, values: &mut [f32], bucket: Bucket, computing: &AtomicBool) {
        self.host.sum_bucket(values, bucket, computing);
    }

    fn reaches_gpus(&self) -> bool {
        true
    }

    fn sum_device_bucket(&self, values: DeviceSlice<'_>, bucket: Bucket) {
        let mut unsettled = self.unsettled.lock().unwrap_or_else(PoisonError::into_inner);
        if !unsettled.contains(&values.stream()) {
            unsettled.push(values.stream());
        }
        drop(unsettled);
        let sum = |slices: &mut [DeviceSlice<'_>]| self.communicator.all_reduce_aside(slices, Reduction::Sum);
        self.enqueue(bucket, &mut [values], sum);
    }

    fn settle(&self) {
        let streams = mem::take(&mut *self.unsettled.lock().unwrap_or_else(PoisonError::into_inner));
        let held = streams.into_iter().try_for_each(|stream| self.communicator.hold(stream));
        held.unwrap_or_else(|error| fail(&error));
    }

    fn all_reduce_f64(&self, values: &mut [f64], reduce: Reduce) {
        self.host.all_reduce_f64(values, reduce);
    }

    fn broadcast(&self, values: &mut [f32], root: usize) {
        self.host.broadcast(values, root);
    }

    fn all_reduce_buffers(&self, buffers: Vec<Buffer<'_>>, reduce: Reduce) {
        let (host, mut device) = sort(buffers);
        let reduction = match reduce {
            Reduce::Sum => Reduction::Sum,
            Reduce::Mean => Reduction::Mean,
        };
        self.enqueue("all_reduce on the GPU", &mut device, |slices| self.communicator.all_reduce(slices, reduction));
        host.into_iter().for_each(|values| self.host.all_reduce(values, reduce));
    }

    fn broadcast_buffers(&self, buffers: Vec<Buffer<'_>>, root: usize) {
        let (host, mut device) = sort(buffers);
        self.enqueue("broadcast on the GPU", &mut device, |slices| self.communicator.broadcast(slices, root));
        host.into_iter().for_each(|values| self.host.broadcast(values, root));
    }

    fn broadcast_bytes(&self, bytes: Vec<u8>, root: usize) -> Vec<u8> {
        self.host.broadcast_bytes(bytes, root)
    }

    fn gather_bytes(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.host.gather_bytes(bytes)
    }

    fn gather_bytes_to(&self, bytes: Vec<u8>, root: usize) -> Vec<Vec<u8>> {
        self.host.gather_bytes_to(bytes, root)
    }

    fn barrier(&self) {
        self.host.barrier();
    }
}
