//! The program that trains: how it names itself, words errors, and exits.

use ddpm_model::{Error, ErrorKind};

/// How the program that trains names itself in what it writes, and how it words and ends failures. The default is that of
/// a program without a command line of its own.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its name and version, recorded in `config.toml` and in checkpoints.
    pub name: String,
    /// An error with its remedies, in the words of the program's options.
    pub word: fn(&Error) -> String,
    /// The exit status for errors of this kind.
    pub exit_code: fn(ErrorKind) -> i32,
}

impl Default for Program {
    fn default() -> Self {
        Self {
            name: concat!("ddpm-train ", env!("CARGO_PKG_VERSION")).into(),
            word: Error::to_string,
            exit_code: |_| 1,
        }
    }
}
