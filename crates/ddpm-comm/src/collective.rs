//! What ranks do together.

use std::fmt;
use std::sync::atomic::AtomicBool;

use nccl_rs::DeviceSlice;

/// Operations in which every rank of the world takes part.
///
/// Each call blocks until all ranks have made it. See the [crate's invariants](crate#invariants):
/// same order, same lengths, same arguments on every rank. A `root` outside `0..size` panics.
pub trait Collective: Send + Sync {
    /// This process's number, in `0..size`.
    fn rank(&self) -> usize;

    /// How many ranks there are.
    fn size(&self) -> usize;

    /// Replaces each element by its sum or mean over all ranks; the same bits on every rank.
    fn all_reduce(&self, values: &mut [f32], reduce: Reduce);

    /// [`all_reduce`](Self::all_reduce) of one bucket of gradients to its sum, on a thread that makes way for another one
    /// of this rank as long as that one is `computing`.
    fn sum_bucket(&self, values: &mut [f32], bucket: Bucket, computing: &AtomicBool);

    /// Whether numbers in the memory of this rank's GPU can stay there: see [`Buffer::Device`].
    fn reaches_gpus(&self) -> bool {
        false
    }

    /// [`sum_bucket`](Self::sum_bucket) in a GPU's memory, behind what the stream of `values` does with other memory: until
    /// [`settle`](Self::settle) nobody may touch this one.
    fn sum_device_bucket(&self, values: DeviceSlice<'_>, _bucket: Bucket) {
        Buffer::Device(values).on_the_host();
    }

    /// From now on the streams of all that went through [`sum_device_bucket`](Self::sum_device_bucket) wait for its results;
    /// the host does not.
    fn settle(&self) {}

    /// [`all_reduce`](Self::all_reduce) in double precision.
    fn all_reduce_f64(&self, values: &mut [f64], reduce: Reduce);

    /// Replaces `values` on every rank by those of `root`.
    fn broadcast(&self, values: &mut [f32], root: usize);

    /// [`all_reduce`](Self::all_reduce) of numbers wherever they are, several buffers as one operation.
    ///
    /// For [`Buffer::Device`] it returns once the work is enqueued: the streams of the buffers wait for the result, the
    /// host does not. [`Transport::Mpi`](crate::Transport::Mpi) does not reach them, and panics.
    fn all_reduce_buffers(&self, buffers: Vec<Buffer<'_>>, reduce: Reduce) {
        for buffer in buffers {
            self.all_reduce(buffer.on_the_host(), reduce);
        }
    }

    /// [`broadcast`](Self::broadcast) of numbers wherever they are; otherwise as
    /// [`all_reduce_buffers`](Self::all_reduce_buffers).
    fn broadcast_buffers(&self, buffers: Vec<Buffer<'_>>, root: usize) {
        for buffer in buffers {
            self.broadcast(buffer.on_the_host(), root);
        }
    }

    /// Returns the bytes of `root` on every rank; what the others pass is ignored and may be empty.
    fn broadcast_bytes(&self, bytes: Vec<u8>, root: usize) -> Vec<u8>;

    /// Returns every rank's bytes, of any lengths, in rank order, on every rank.
    fn gather_bytes(&self, bytes: &[u8]) -> Vec<Vec<u8>>;

    /// Returns every rank's bytes, of any lengths, in rank order, on `root`, and nothing on the others: what is large
    /// need not fit in the memory of each.
    fn gather_bytes_to(&self, bytes: Vec<u8>, root: usize) -> Vec<Vec<u8>>;

    /// Returns once every rank has called it.
    fn barrier(&self);
}

/// Numbers to be exchanged, where they are.
#[derive(Debug)]
pub enum Buffer<'a> {
    /// In the host's memory.
    Host(&'a mut [f32]),
    /// In the memory of this rank's GPU ([`Selected::device`](crate::Selected::device)).
    Device(DeviceSlice<'a>),
}

impl<'a> Buffer<'a> {
    fn on_the_host(self) -> &'a mut [f32] {
        match self {
            Self::Host(values) => values,
            Self::Device(_) => panic!("a buffer in a GPU's memory needs NCCL, and this run has MPI only"),
        }
    }
}

/// How an all-reduce combines the ranks' values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    /// x_0 + x_1 + ... + x_{size-1}
    Sum,
    /// The sum, divided by the number of ranks.
    Mean,
}

/// One of the pieces in which gradients are averaged; shown as `gradient bucket 3 of 7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its number, from 0.
    pub index: usize,
    /// How many there are.
    pub of: usize,
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gradient bucket {} of {}", self.index + 1, self.of)
    }
}
