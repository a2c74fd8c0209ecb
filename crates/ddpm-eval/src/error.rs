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

    /// Two sets whose vectors differ in length.
    #[error("{ours} features are compared with {theirs}. Use the same extractor for both sides")]
    Widths {
        /// Features per vector on one side.
        ours: i64,
        /// On the other.
        theirs: i64,
    },

    /// A mean and a covariance that do not belong together.
    #[error("the mean has shape {mean:?} and the covariance {covariance:?}, but [D] and [D, D] are needed")]
    Moments {
        /// The mean's shape.
        mean: Vec<i64>,
        /// The covariance's.
        covariance: Vec<i64>,
    },

    /// A mean or a covariance that is NaN or infinite.
    #[error("the mean or the covariance is not finite. Compute them again")]
    MomentsNotFinite,

    /// A set that cannot fill a subset.
    #[error(
        "subsets of {size} vectors cannot be drawn from {found}. Set --subset-size to a number from 2 to {found}, or take more images"
    )]
    TooFewForSubsets {
        /// The number of vectors.
        found: usize,
        /// Vectors in a subset.
        size: usize,
    },

    /// A set in which a vector has fewer neighbours than needed.
    #[error("each of {found} images has fewer than {neighbours} others. Compare more images, or take fewer neighbours")]
    TooFewNeighbours {
        /// The number of vectors.
        found: usize,
        /// The number of neighbours.
        neighbours: usize,
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
