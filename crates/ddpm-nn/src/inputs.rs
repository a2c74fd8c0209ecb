//! What a network is applied to.

use tch::Tensor;

use crate::dropout::DropoutKeys;

/// What a network is applied to.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Noised images, f32 `[B, C, H, W]`.
    pub x: &'a Tensor,
    /// Timesteps, i64 `[B]`, 0-based, of the process that it was trained on (never of a respaced one).
    pub t: &'a Tensor,
    /// Classes, i64 `[B]`, for a class-conditional network.
    pub labels: Option<&'a Tensor>,
    /// Given in training only.
    pub dropout: Option<&'a DropoutKeys>,
}
