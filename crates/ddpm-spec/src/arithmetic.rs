//! How the network's numbers are computed.

use serde::{Deserialize, Serialize};

/// Arithmetic of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats.
    Fp32,
    /// bfloat16 activations, fp32 weights.
    Bf16,
    /// `bf16` where the GPU, or the CPU, of every rank has instructions for it, else `fp32`.
    Auto,
}

/// How the CPU computes 3x3 convolutions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Convolutions {
    /// By Winograd's algorithm where the channels allow it and the CPU has no faster way.
    Auto,
    /// By libtorch alone.
    Direct,
}
