//! The collectives of ranks with one GPU each: GPU memory over NCCL, everything else over MPI.

use std::fmt::Display;
use std::mem;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nccl_rs::{Communicator, Cuda, DeviceSlice, Error, Pending, Reduction, StreamHandle, UniqueId};

use crate::watch::Watch;
use crate::{Bucket, Collective, Reduce, abort};

/// How often to poll whether an operation on the GPU is done. Only the watchdog depends on it.
const POLL: Duration = Duration::from_millis(5);

/// How often to poll NCCL for errors while no operation is in progress.
const IDLE_POLL: Duration = Duration::from_secs(1);

pub(crate) struct Nccl {
    host: Arc<dyn Collective>,
    communicator: Arc<Communicator>,
    watch: Arc<Watch>,
    monitor: Mutex<Option<Monitor>>,
    /// The streams that do not yet wait for the buckets that were enqueued.
    unsettled: Mutex<Vec<StreamHandle>>,
}

/// The thread that monitors operations until they are done, and the channel to it.
struct Monitor {
    in_progress: Sender<(String, Pending)>,
    thread: JoinHandle<()>,
}

impl Nccl {
    /// Connects the ranks of `host`, each with its `device`; `id` is the same on all. Waits for all of them.
    pub(crate) fn connect(
        host: Arc<dyn Collective>,
        watch: Arc<Watch>,
        (nccl, cuda, device): (&'static nccl_rs::Nccl, &'static Cuda, usize),
        id: &UniqueId,
    ) -> Result<Self, Error> {
        let communicator = {
            let _entered = watch.enter("NCCL initialization");
            Arc::new(Communicator::new(nccl, cuda, device, host.rank(), host.size(), id)?)
        };
        let (in_progress, receiver) = channel();
        let (theirs, watched) = (Arc::clone(&communicator), Arc::clone(&watch));
        let thread = thread::Builder::new()
            .name("nccl".into())
            .spawn(move || monitor_operations(&receiver, &theirs, &watched))
            .expect("the system can start another thread");
        let monitor = Mutex::new(Some(Monitor { in_progress, thread }));
        Ok(Self { host, communicator, watch, monitor, unsettled: Mutex::default() })
    }

    /// Waits for the last operations and shuts down the communicator, collectively.
    pub(crate) fn finish(&self) {
        let monitor = self.monitor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Monitor { in_progress, thread }) = monitor {
            drop(in_progress);
            // It has already reported its own error, if any.
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
        let _entered = self.watch.enter(&operation); // NCCL's first operation waits for the peers to connect
        let pending = call(slices).unwrap_or_else(|error| fail(&error));
        if let Some(monitor) = &*self.monitor.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = monitor.in_progress.send((operation, pending)); // the thread receives as long as we exist
        }
    }
}

/// Monitors each operation until it is done on the GPU, under the watchdog, and polls for errors meanwhile.
fn monitor_operations(in_progress: &Receiver<(String, Pending)>, communicator: &Communicator, watch: &Watch) {
    let check = || {
        communicator.async_error().or_else(|error| match error {
            Error::Finished => Ok(()),
            error => Err(error),
        })
    };
    let wait_for = |pending: &Pending| {
        while !pending.is_done()? {
            check()?;
            thread::sleep(POLL);
        }
        check() // the operation may have ended because of an error
    };
    loop {
        let outcome = match in_progress.recv_timeout(IDLE_POLL) {
            Ok((operation, pending)) => {
                let _entered = watch.enter(operation);
                wait_for(&pending)
            }
            Err(RecvTimeoutError::Timeout) => check(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        outcome.unwrap_or_else(|error| fail(&error));
    }
}

/// As with MPI, a failed collective does not return: the run ends.
fn fail(error: &Error) -> ! {
    abort(1, &error.to_string())
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
        let sum = |slices: &mut [DeviceSlice<'_>]| self.communicator.all_reduce(slices, Reduction::Sum);
        self.enqueue(bucket, &mut [values], sum);
    }

    fn settle(&self) {
        let streams = mem::take(&mut *self.unsettled.lock().unwrap_or_else(PoisonError::into_inner));
        let settled = streams.into_iter().try_for_each(|stream| self.communicator.make_wait(stream));
        settled.unwrap_or_else(|error| fail(&error));
    }

    fn all_reduce_f64(&self, values: &mut [f64], reduce: Reduce) {
        self.host.all_reduce_f64(values, reduce);
    }

    fn broadcast(&self, values: &mut [f32], root: usize) {
        self.host.broadcast(values, root);
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
