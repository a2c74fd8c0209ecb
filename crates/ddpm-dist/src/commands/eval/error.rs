//! Errors of evaluations, by kind.

use ddpm_eval::EvalError;
use ddpm_model::{Error, ErrorKind};

/// The error of the program that an error of ddpm-eval is.
pub fn of_eval(error: EvalError) -> Error {
    match error {
        EvalError::Torch(error) => error.into(),
        EvalError::Diffusion(error) => error.into(),
        EvalError::NotFinite { .. } => Error::caused_by(ErrorKind::Diverged, error),
        _ => Error::caused_by(ErrorKind::Config, error),
    }
}
