//! Collective operations.

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

    /// The number of ranks.
    fn size(&self) -> usize;

    /// Replaces each element by its sum or mean over all ranks; the same bits on every rank.
    fn all_reduce(&self, values: &mut [f32], reduce: Reduce);

    /// Sums one bucket of gradients over all ranks, on a background thread that yields the processor to the rank's main
    /// thread while that one is `computing`.
    fn sum_bucket(&self, values: &mut [f32], bucket: Bucket, computing: &AtomicBool);

    /// Whether values in this rank's GPU memory can be reduced in place: see [`Buffer::Device`].
    fn reaches_gpus(&self) -> bool {
        false
    }

    /// Enqueues [`sum_bucket`](Self::sum_bucket) of values in GPU memory. It overlaps with work on other memory on the
    /// stream of `values`; this memory must not be accessed before [`settle`](Self::settle).
    fn sum_device_bucket(&self, values: DeviceSlice<'_>, _bucket: Bucket) {
        Buffer::Device(values).host_slice();
    }

    /// Makes the streams of all buckets passed to [`sum_device_bucket`](Self::sum_device_bucket) wait for the results;
    /// does not block the host.
    fn settle(&self) {}

    /// [`all_reduce`](Self::all_reduce) in double precision.
    fn all_reduce_f64(&self, values: &mut [f64], reduce: Reduce);

    /// Replaces `values` on every rank by those of `root`.
    fn broadcast(&self, values: &mut [f32], root: usize);

    /// Returns the bytes of `root` on every rank; the other ranks' arguments are ignored and may be empty.
    fn broadcast_bytes(&self, bytes: Vec<u8>, root: usize) -> Vec<u8>;

    /// Returns every rank's bytes, of any length, in rank order, on every rank.
    fn gather_bytes(&self, bytes: &[u8]) -> Vec<Vec<u8>>;

    /// Returns every rank's bytes, of any length, in rank order, on `root`, and nothing on the others, so that large
    /// data needs to fit only in the memory of `root`.
    fn gather_bytes_to(&self, bytes: Vec<u8>, root: usize) -> Vec<Vec<u8>>;

    /// Returns once every rank has called it.
    fn barrier(&self);
}

/// Values to be reduced, in host or GPU memory.
#[derive(Debug)]
pub enum Buffer<'a> {
    /// In host memory.
    Host(&'a mut [f32]),
    /// In the memory of this rank's GPU ([`Selected::device`](crate::Selected::device)).
    Device(DeviceSlice<'a>),
}

impl<'a> Buffer<'a> {
    fn host_slice(self) -> &'a mut [f32] {
        match self {
            Self::Host(values) => values,
            Self::Device(_) => panic!("a buffer in GPU memory needs NCCL, but this run uses MPI only"),
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

/// One bucket of gradients, displayed as `gradient bucket 3 of 7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its number, from 0.
    pub index: usize,
    /// The number of buckets.
    pub of: usize,
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gradient bucket {} of {}", self.index + 1, self.of)
    }
}
