//! The errors of the libraries, with their own messages.

use std::path::PathBuf;

use crate::version::{MINIMUM, NCCL_VARIABLE, Version};

/// An error of NCCL or CUDA.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library was not found or does not load.
    #[error("{library} cannot be loaded ({message}). Install it, or set {variable} to its path")]
    NotLoaded {
        /// Its usual name, or the given path.
        library: PathBuf,
        /// The loader's message.
        message: String,
        /// The environment variable for its path.
        variable: &'static str,
    },
    /// The library lacks a function.
    #[error("{library} has no function `{symbol}`. Set {variable} to the path of a complete one")]
    NoSymbol {
        /// The library.
        library: PathBuf,
        /// The function's name.
        symbol: &'static str,
        /// The environment variable for the path of another library.
        variable: &'static str,
    },
    /// This version of NCCL is too old.
    #[error(
        "{library} is NCCL {found}, but at least {MINIMUM} is required. Install a newer one, or set {NCCL_VARIABLE} to its path"
    )]
    TooOld {
        /// The library.
        library: PathBuf,
        /// Its version.
        found: Version,
    },
    /// A function of NCCL failed.
    #[error("{call} failed: {message}. Run again with NCCL_DEBUG=WARN for the cause")]
    Nccl {
        /// The function, or a phrase for an operation that failed asynchronously.
        call: &'static str,
        /// Its result code; later versions of NCCL may have codes that this crate does not know.
        code: i32,
        /// NCCL's message for the code, and its last error if there is one.
        message: String,
    },
    /// A function of the CUDA runtime failed.
    #[error(
        "{call} failed: {message} (CUDA error {code}). See nvidia-smi and the kernel log (dmesg) for the state of the GPU"
    )]
    Cuda {
        /// The function.
        call: &'static str,
        /// Its result code.
        code: i32,
        /// The runtime's message.
        message: String,
    },
    /// A function of NVML failed.
    #[error("{call} failed (NVML error {code}). Compare with nvidia-smi, which uses the same library")]
    Nvml {
        /// The function.
        call: &'static str,
        /// Its result code.
        code: i32,
    },
    /// The communicator is already finished.
    #[error("the NCCL communicator is already finished. Make all calls before Communicator::finish")]
    Finished,
}
