//! Where the network computes.

use serde::{Deserialize, Serialize};

/// Where the network computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// On a GPU of the rank's own where there are GPUs, else on the CPU.
    Auto,
    /// On the CPU.
    Cpu,
    /// On a GPU of the rank's own.
    Cuda,
}
