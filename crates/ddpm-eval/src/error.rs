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

    /// Feature vectors of the wrong shape.
    #[error("features of shape {found:?} were given where [.., {due}] was due. Use one extractor on both sides")]
    Features {
        /// Numbers in a vector.
        due: usize,
        /// The shape that came.
        found: Vec<i64>,
    },

    /// Too few vectors for a covariance.
    #[error("a covariance was asked of {found} images. Give at least 2, and many more than there are features")]
    TooFew {
        /// How many there are.
        found: u64,
    },

    /// A feature that is infinite or not a number.
    #[error("some features are not finite numbers. Look at the images they come from")]
    NotFinite,

    /// The process or the network failed.
    #[error(transparent)]
    Diffusion(#[from] DiffusionError),

    /// libtorch failed.
    #[error("libtorch refused an operation. Check shapes, kinds and devices of the tensors given: {0}")]
    Torch(#[from] tch::TchError),
}
