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

    /// Features that are no rows of the expected length.
    #[error("features of shape {found:?} came where rows of {dim} were due. Take all from one extractor")]
    Features {
        /// The shape that came.
        found: Vec<i64>,
        /// Features of a vector.
        dim: i64,
    },

    /// A covariance of fewer than two vectors.
    #[error("{found} images have no covariance. Compare sets of at least 2, and of thousands for a figure to rely on")]
    TooFew {
        /// How many there are.
        found: i64,
    },

    /// A term of the bound that is NaN or infinite.
    #[error(
        "the bound of image {image} at t = {t} is not finite, as after training that diverged. Go back to an earlier step, or use other weights"
    )]
    NotFinite {
        /// The image's place among all evaluated.
        image: usize,
        /// The timestep, of the process evaluated.
        t: usize,
    },

    /// The process or the network failed.
    #[error(transparent)]
    Diffusion(#[from] DiffusionError),

    /// libtorch failed.
    #[error("libtorch refused an operation. Check shapes, kinds and devices of the tensors given: {0}")]
    Torch(#[from] tch::TchError),
}
