//! The library that averages gradients.

use serde::{Deserialize, Serialize};

/// Library that averages gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// `solo` for one rank; `nccl` where every rank has a GPU; else `mpi`.
    Auto,
    /// No communication: one rank.
    Solo,
    /// MPI, on host memory.
    Mpi,
    /// NCCL, between GPUs.
    Nccl,
}
