//! Errors of this crate.

use std::path::PathBuf;

use ddpm_spec::SpecError;

/// What the folder of a model should contain.
pub(crate) const EXPECTED: &str = "expected a diffusers directory: unet/config.json or config.json, and beside it \
                                   diffusion_pytorch_model.safetensors or .bin";

/// A network that cannot be built, or weights that do not fit it.
#[derive(Debug, thiserror::Error)]
pub enum NnError {
    /// The network cannot be built.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Weights of another architecture.
    #[error("{0}")]
    Architecture(String),
    /// A file of a model cannot be read.
    #[error("cannot read {path}: {reason}; {fix}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
        /// What to do about it.
        fix: String,
    },
    /// A diffusers model that this crate does not implement.
    #[error("{path} asks for {what}, which is not supported; docs/diffusers.md lists what is")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// Key and value.
        what: String,
    },
    /// A weight file does not hold exactly the tensors of the network.
    #[error("{path} does not fit the network: {what}; check that config.json belongs to these weights")]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Which tensor, and how it differs.
        what: String,
    },
    /// A file that does not hold a U-Net of OpenAI's code.
    #[error("{path} is not a U-Net of OpenAI's improved-diffusion or guided-diffusion: {what}")]
    NotOpenAi {
        /// The file.
        path: PathBuf,
        /// Which tensor shows it.
        what: String,
    },
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}
