//! The collectives over MPI, for ranks started by a launcher.

use std::ffi::c_void;
use std::fmt::Display;
use std::ops::DivAssign;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use ::mpi::datatype::Equivalence;
use ::mpi::environment::library_version;
use ::mpi::ffi;
use ::mpi::topology::SimpleCommunicator;
use ::mpi::traits::*;

use crate::watch::{Entered, Watch};
use crate::{Bucket, Collective, Reduce};

/// Elements per MPI call. MPI counts elements as a C int, so large buffers must be split.
const CHUNK: usize = 1 << 24;

/// Elements per MPI call of a sum. Small pieces stay in the processor's cache between passes, and several can be in
/// flight (docs/log.md has the measurements).
const PIECE: usize = 1 << 16;

/// Pieces of a sum in flight at the same time: one is sent while the next is added.
const AT_ONCE: usize = 16;

/// Polling interval of a collective in progress while another thread computes, which has the processor in between. If
/// it is longer, a fast network idles (docs/log.md has the measurements).
const POLL: Duration = Duration::from_micros(200);

/// For blocking collectives: no other thread is computing.
static IDLE: AtomicBool = AtomicBool::new(false);

pub(crate) struct Mpi {
    rank: usize,
    size: usize,
    in_place: InPlace,
    turn: Mutex<()>,
    watch: Arc<Watch>,
}

impl Mpi {
    /// Wraps `MPI_COMM_WORLD`; MPI must be initialized, with at least `MPI_THREAD_SERIALIZED`.
    pub(crate) fn new(watch: Arc<Watch>) -> Self {
        let world = SimpleCommunicator::world();
        Self {
            rank: world.rank() as usize,
            size: world.size() as usize,
            in_place: InPlace::of_this_library(),
            turn: Mutex::new(()),
            watch,
        }
    }

    /// Takes this rank's lock on MPI, so that two threads are never inside a collective at once, and registers the
    /// operation with the watchdog.
    fn enter(&self, operation: impl Display) -> (Entered<'_>, MutexGuard<'_, ()>) {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        (self.watch.enter(operation), turn)
    }

    fn sum_or_mean<T>(&self, values: &mut [T], reduce: Reduce, size: T, computing: &AtomicBool)
    where
        T: Equivalence + DivAssign + Copy,
    {
        for group in values.chunks_mut(PIECE * AT_ONCE) {
            // SAFETY: the pieces are valid for reads and writes of their lengths, which fit in a C int, and have the
            // datatype's layout. MPI keeps the pointers until MPI_Testall reports that all requests are done, and
            // neither the loop nor the borrow ends before that. The handles are MPI's own constants. A failure does not
            // return (errors are fatal).
            unsafe {
                let mut requests = Vec::with_capacity(AT_ONCE);
                for piece in group.chunks_mut(PIECE) {
                    let mut request = ffi::RSMPI_REQUEST_NULL;
                    ffi::MPI_Iallreduce(
                        self.in_place.0 as *const c_void,
                        piece.as_mut_ptr().cast(),
                        piece.len() as i32,
                        T::equivalent_datatype().as_raw(),
                        ffi::RSMPI_SUM,
                        ffi::RSMPI_COMM_WORLD,
                        &mut request,
                    );
                    requests.push(request);
                }
                let mut done = 0;
                loop {
                    let count = requests.len() as i32;
                    ffi::MPI_Testall(count, requests.as_mut_ptr(), &mut done, ffi::RSMPI_STATUSES_IGNORE);
                    if done != 0 {
                        break;
                    } else if computing.load(Ordering::Relaxed) {
                        thread::sleep(POLL);
                    } else {
                        thread::yield_now();
                    }
                }
            }
            if reduce == Reduce::Mean {
                group.iter_mut().for_each(|value| *value /= size);
            }
        }
    }

    fn broadcast_chunks<T>(&self, values: &mut [T], root: usize)
    where
        [T]: BufferMut,
    {
        let world = SimpleCommunicator::world();
        for chunk in values.chunks_mut(CHUNK) {
            world.process_at_rank(root as i32).broadcast_into(chunk);
        }
    }
}

impl Collective for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_reduce(&self, values: &mut [f32], reduce: Reduce) {
        let _entered = self.enter("all_reduce");
        self.sum_or_mean(values, reduce, self.size as f32, &IDLE);
    }

    fn sum_bucket(&self, values: &mut [f32], bucket: Bucket, computing: &AtomicBool) {
        let _entered = self.enter(bucket);
        self.sum_or_mean(values, Reduce::Sum, self.size as f32, computing);
    }

    fn all_reduce_f64(&self, values: &mut [f64], reduce: Reduce) {
        let _entered = self.enter("all_reduce");
        self.sum_or_mean(values, reduce, self.size as f64, &IDLE);
    }

    fn broadcast(&self, values: &mut [f32], root: usize) {
        let _entered = self.enter("broadcast");
        self.broadcast_chunks(values, root);
    }

    fn broadcast_bytes(&self, mut bytes: Vec<u8>, root: usize) -> Vec<u8> {
        let _entered = self.enter("broadcast_bytes");
        let mut len = [bytes.len() as u64];
        self.broadcast_chunks(&mut len, root);
        bytes.resize(len[0] as usize, 0);
        self.broadcast_chunks(&mut bytes, root);
        bytes
    }

    fn gather_bytes(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let _entered = self.enter("gather_bytes");
        let mut lens = vec![0u64; self.size];
        SimpleCommunicator::world().all_gather_into(&(bytes.len() as u64), &mut lens[..]);
        // One broadcast per rank with data: MPI_Allgatherv would limit the total to 2 GiB, and most gathers are small
        // or (agreements without a failure) empty.
        lens.iter()
            .enumerate()
            .map(|(root, &len)| {
                let mut theirs = vec![0; len as usize];
                if root == self.rank {
                    theirs.copy_from_slice(bytes);
                }
                self.broadcast_chunks(&mut theirs, root);
                theirs
            })
            .collect()
    }

    fn gather_bytes_to(&self, bytes: Vec<u8>, root: usize) -> Vec<Vec<u8>> {
        let _entered = self.enter("gather_bytes_to");
        let world = SimpleCommunicator::world();
        if self.rank != root {
            world.process_at_rank(root as i32).send(&(bytes.len() as u64));
            bytes.chunks(CHUNK).for_each(|chunk| world.process_at_rank(root as i32).send(chunk));
            return Vec::new();
        }
        let receive = |rank: usize| {
            let sender = world.process_at_rank(rank as i32);
            let mut theirs = vec![0; sender.receive::<u64>().0 as usize];
            for chunk in theirs.chunks_mut(CHUNK) {
                sender.receive_into(chunk);
            }
            theirs
        };
        let mut all: Vec<Vec<u8>> = (0..root).map(receive).collect();
        all.push(bytes);
        all.extend((root + 1..self.size).map(receive));
        all
    }

    fn barrier(&self) {
        let _entered = self.enter("barrier");
        SimpleCommunicator::world().barrier();
    }
}

/// The value of `MPI_IN_PLACE`, a C macro that rsmpi does not expose.
struct InPlace(isize);

impl InPlace {
    fn of_this_library() -> Self {
        // 1 in Open MPI's mpi.h; -1 in MPICH's, whose ABI Intel MPI, MVAPICH and Cray MPICH share.
        let open_mpi = library_version().is_ok_and(|version| version.starts_with("Open MPI"));
        Self(if open_mpi { 1 } else { -1 })
    }
}
