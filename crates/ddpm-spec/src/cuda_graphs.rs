//! How a GPU gets its work.

use serde::{Deserialize, Serialize};

/// Whether a training pass is recorded once as a CUDA graph, which the GPU gets as a whole from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CudaGraphs {
    /// Where that is possible.
    Auto,
    /// Never: the host enqueues each operation of each pass.
    Off,
}
