//! What can go wrong, in the libraries' own words.

use std::path::PathBuf;

use crate::version::{MINIMUM, NCCL_VARIABLE, Version};

/// Why NCCL or CUDA could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library is not where it was looked for, or does not load.
    #[error("{library} cannot be loaded ({words}). Install it, or set {variable} to the path of the file")]
    NotLoaded {
        /// Its usual name, or the path that was given.
        library: PathBuf,
        /// The loader's words.
        words: String,
        /// The environment variable that gives its path.
        variable: &'static str,
    },
    /// The library lacks a function.
    #[error("{library} has no function `{symbol}`. Set {variable} to the path of a complete one")]
    NoSymbol {
        /// The library.
        library: PathBuf,
        /// The function's name.
        symbol: &'static str,
        /// The environment variable that gives another library's path.
        variable: &'static str,
    },
    /// This NCCL lacks functions or meanings that are relied upon.
    #[error(
        "{library} is NCCL {found}, but at least {MINIMUM} is needed. Install a newer one, or set {NCCL_VARIABLE} to its path"
    )]
    TooOld {
        /// The library.
        library: PathBuf,
        /// Its version.
        found: Version,
    },
    /// A function of NCCL failed.
    #[error("{call} failed: {words}. Run again with NCCL_DEBUG=WARN for the cause")]
    Nccl {
        /// The function; for what failed behind the call, `ncclCommGetAsyncError`.
        call: &'static str,
        /// Its result; later versions of NCCL may have codes that this crate does not know.
        code: i32,
        /// NCCL's words for the code, and for its last error where it has any.
        words: String,
    },
    /// A function of the CUDA runtime failed.
    #[error(
        "{call} failed: {words} (CUDA error {code}). See nvidia-smi and the kernel's log (dmesg) for the GPU's state"
    )]
    Cuda {
        /// The function.
        call: &'static str,
        /// Its result.
        code: i32,
        /// The runtime's words.
        words: String,
    },
    /// The communicator was finished before.
    #[error("the NCCL communicator is finished already. Make all calls before Communicator::finish")]
    Finished,
}
