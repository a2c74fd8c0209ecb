//! Errors of the crate.

use mpi::Threading;

/// Why a process could not join the run, or could not use what another rank sent.
#[derive(Debug, thiserror::Error)]
pub enum CommError {
    /// The process belongs to a Slurm step of several tasks that cannot find each other.
    #[error(
        "srun started {tasks} tasks without an MPI interface, so each would train alone. \
         Add --mpi=pmix to srun, or start the ranks with mpirun"
    )]
    NoPmi {
        /// The tasks of the Slurm step.
        tasks: usize,
    },
    /// The launcher belongs to another MPI library than the one this program uses.
    #[error(
        "the launcher started {expected} ranks, but the MPI library found {found}: they belong to \
         different MPI installations. Use the mpirun of the MPI this program was built with"
    )]
    OtherLauncher {
        /// The number of ranks the launcher announced.
        expected: usize,
        /// The size of `MPI_COMM_WORLD`.
        found: usize,
    },
    /// The MPI library was built without the thread support that collectives need.
    #[error(
        "the MPI library offers thread level {provided:?}, but at least Serialized is needed. \
         Use an MPI built with thread support"
    )]
    Threads {
        /// The level that MPI_Init_thread granted.
        provided: Threading,
    },
    /// [`World::init`] was called before in this process.
    #[error("MPI is already initialized in this process. Call World::init once and share the World")]
    AlreadyInitialized,
    /// NCCL was requested but is not available for this run. All ranks return this error.
    #[error("comm.backend is \"nccl\", but {reason}; or set comm.backend to \"mpi\" or \"auto\"")]
    NoNccl {
        /// The obstacle, its rank, and how to fix it.
        reason: String,
    },
    /// NCCL failed to start on this rank; the others may still be waiting for it.
    #[error("{0}; or set comm.backend to \"mpi\"")]
    NcclStart(#[from] nccl_rs::Error),
    /// A value from another rank cannot be deserialized.
    #[error("the data from rank {rank} cannot be read ({reason}); run the same program on every rank")]
    Unreadable {
        /// The rank that sent it.
        rank: usize,
        /// What is wrong with the data.
        reason: String,
    },
    /// The ranks received different bytes from rank 0.
    #[error(
        "the ranks received different bytes from rank 0, so the network or memory corrupts data; check the machines"
    )]
    Corrupted,
}
