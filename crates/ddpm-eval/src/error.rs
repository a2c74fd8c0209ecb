//! The crate's error type.

use ddpm_diffusion::DiffusionError;

/// An error of an evaluation.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// Fewer than two timesteps (the decoder's and one other), or more than the process has.
    #[error("{requested} timesteps per image were requested of a process with {timesteps}. Use 2 to {timesteps}")]
    Timesteps {
        /// The requested number.
        requested: usize,
        /// T.
        timesteps: usize,
    },

    /// Features that are not rows of the expected length.
    #[error(
        "features have shape {found:?}, but rows of length {dim} are needed. Use the same extractor for all images"
    )]
    Features {
        /// The shape found.
        found: Vec<i64>,
        /// Features per vector.
        dim: i64,
    },

    /// A covariance of fewer than two vectors.
    #[error("{found} images have no covariance. Compare sets of at least 2, and of thousands for a reliable result")]
    TooFew {
        /// The number of vectors.
        found: i64,
    },

    /// A term of the bound that is NaN or infinite.
    #[error(
        "the bound of image {image} at t = {t} is not finite, as happens after training has diverged. Use an earlier step, or other weights"
    )]
    NotFinite {
        /// The index of the image among all evaluated.
        image: usize,
        /// The timestep of the evaluated process.
        t: usize,
    },

    /// The process or the network failed.
    #[error(transparent)]
    Diffusion(#[from] DiffusionError),

    /// libtorch failed.
    #[error("libtorch refused an operation. Check shapes, kinds and devices of the tensors: {0}")]
    Torch(#[from] tch::TchError),
}
