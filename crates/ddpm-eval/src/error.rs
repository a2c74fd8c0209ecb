//! The crate's error type.

use ddpm_diffusion::DiffusionError;

/// What can be wrong with an evaluation.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// Fewer timesteps than the decoder's and one other, or more than there are.
    #[error("{asked} timesteps were asked of each image of a process of {timesteps}. Use 2 to {timesteps}")]
    Timesteps {
        /// How many were asked for.
        asked: usize,
        /// T.
        timesteps: usize,
    },

    /// The process or the network failed.
    #[error(transparent)]
    Diffusion(#[from] DiffusionError),

    /// libtorch failed.
    #[error("libtorch refused an operation. Check shapes, kinds and devices of the tensors given: {0}")]
    Torch(#[from] tch::TchError),
}
