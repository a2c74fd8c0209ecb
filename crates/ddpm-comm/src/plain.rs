//! MPI's own all-reduce, for comparison.

use ::mpi::collective::SystemOperation;
use ::mpi::topology::SimpleCommunicator;
use ::mpi::traits::*;

use crate::World;

/// Elements per call, of which MPI counts in C ints.
const MOST: usize = i32::MAX as usize;

impl World {
    /// `MPI_Allreduce` as one would call it without this crate: the sum over all ranks of `sent` into `received`. It is
    /// what benchmarks compare [`Collective::all_reduce`](crate::Collective::all_reduce) with; the watchdog does not see
    /// it.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn plain_all_reduce(&self, sent: &[f32], received: &mut [f32]) {
        assert_eq!(sent.len(), received.len(), "an all-reduce gives as many values as it takes");
        if self.size() == 1 {
            return received.copy_from_slice(sent);
        }
        let world = SimpleCommunicator::world();
        for (sent, received) in sent.chunks(MOST).zip(received.chunks_mut(MOST)) {
            world.all_reduce_into(sent, received, SystemOperation::sum());
        }
    }
}
