//! MPI's own all-reduce, as a baseline for benchmarks.

use ::mpi::collective::SystemOperation;
use ::mpi::topology::SimpleCommunicator;
use ::mpi::traits::*;

use crate::World;

/// Elements per call, which MPI counts as a C int.
const MAX_COUNT: usize = i32::MAX as usize;

impl World {
    /// `MPI_Allreduce` called directly: writes the sum over all ranks of `sent` to `received`. It is the baseline for
    /// benchmarks of [`Averager`](crate::Averager); the watchdog does not monitor it.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn plain_all_reduce(&self, sent: &[f32], received: &mut [f32]) {
        assert_eq!(sent.len(), received.len(), "an all-reduce needs a result buffer of equal length");
        if self.size() == 1 {
            return received.copy_from_slice(sent);
        }
        let world = SimpleCommunicator::world();
        for (sent, received) in sent.chunks(MAX_COUNT).zip(received.chunks_mut(MAX_COUNT)) {
            world.all_reduce_into(sent, received, SystemOperation::sum());
        }
    }
}
