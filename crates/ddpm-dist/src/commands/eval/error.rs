//! Classifies the errors of evaluations.

use ddpm_eval::EvalError;
use ddpm_model::{Error, ErrorKind};

/// Converts an error of ddpm-eval to the program's own.
pub fn of_eval(error: EvalError) -> Error {
    match error {
        EvalError::Torch(error) => error.into(),
        EvalError::Diffusion(error) => error.into(),
        EvalError::NotFinite { .. } => Error::caused_by(ErrorKind::Diverged, error),
        _ => Error::caused_by(ErrorKind::Config, error),
    }
}
