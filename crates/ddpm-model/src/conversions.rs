//! Converts the errors of lower-level crates to [`Error`], classified by kind.

use ddpm_checkpoint::CheckpointError;
use ddpm_comm::CommError;
use ddpm_data::DataError;
use ddpm_diffusion::DiffusionError;
use ddpm_eval::EvalError;
use ddpm_nn::NnError;
use ddpm_telemetry::DrawError;

use crate::error::{Error, ErrorKind, Remedy};

impl From<ddpm_config::Error> for Error {
    fn from(error: ddpm_config::Error) -> Self {
        Self::caused_by(ErrorKind::Config, error)
    }
}

impl From<ddpm_spec::SpecError> for Error {
    fn from(error: ddpm_spec::SpecError) -> Self {
        Self::caused_by(ErrorKind::Config, error)
    }
}

impl From<DataError> for Error {
    fn from(error: DataError) -> Self {
        let error = match error {
            DataError::Prepare { step, source } => match source.downcast::<tch::TchError>() {
                Ok(error) => return (*error).into(),
                Err(source) => DataError::Prepare { step, source },
            },
            error => error,
        };
        let (kind, remedy) = match error {
            DataError::Spec(_) | DataError::Setting(_) => (ErrorKind::Config, None),
            DataError::MissingFile { .. } => (ErrorKind::Storage, Some(Remedy::FetchData)),
            DataError::Image { .. } => (ErrorKind::Storage, Some(Remedy::AllowRemoval)),
            DataError::Vanished { .. } => (ErrorKind::Storage, Some(Remedy::ResumeWithout)),
            DataError::Stopped => (ErrorKind::Stopped, None),
            _ => (ErrorKind::Storage, None),
        };
        with_remedy(Self::caused_by(kind, error), remedy)
    }
}

impl From<CheckpointError> for Error {
    fn from(error: CheckpointError) -> Self {
        let error = match error {
            CheckpointError::NoValues { path, source } => {
                return libtorch_or_internal(source, &format!("the values of {path} cannot be copied"));
            }
            error => error,
        };
        let (kind, remedy) = match &error {
            // Two jobs write to one store: this one must not continue.
            CheckpointError::Held { uri, .. } => {
                (ErrorKind::ResumeRefused, Some(Remedy::Unlock { uri: uri.clone(), force: false }))
            }
            CheckpointError::Fenced { .. } | CheckpointError::LeaseLost { .. } => (ErrorKind::ResumeRefused, None),
            CheckpointError::DamagedLease { uri, .. } => {
                (ErrorKind::Storage, Some(Remedy::Unlock { uri: uri.clone(), force: true }))
            }
            CheckpointError::Address { .. } | CheckpointError::Unconditional { .. } => (ErrorKind::Config, None),
            _ => (ErrorKind::Storage, None),
        };
        with_remedy(Self::caused_by(kind, error), remedy)
    }
}

/// The error of a function that a library was given to call: libtorch's, or another, which no user can have caused.
fn libtorch_or_internal(source: Box<dyn std::error::Error + Send + Sync>, what: &str) -> Error {
    match source.downcast::<tch::TchError>() {
        Ok(error) => (*error).into(),
        Err(source) => Error::internal(format!("{what}: {source}")),
    }
}

fn with_remedy(error: Error, remedy: Option<Remedy>) -> Error {
    match remedy {
        Some(remedy) => error.or(remedy),
        None => error,
    }
}

impl From<DiffusionError> for Error {
    fn from(error: DiffusionError) -> Self {
        match error {
            DiffusionError::Torch(error) => error.into(),
            DiffusionError::Model { t, source } => {
                libtorch_or_internal(source, &format!("the network failed at timestep {t}"))
            }
            _ => Self::caused_by(ErrorKind::Config, error),
        }
    }
}

impl From<EvalError> for Error {
    fn from(error: EvalError) -> Self {
        match error {
            EvalError::Torch(error) => error.into(),
            EvalError::Diffusion(error) => error.into(),
            EvalError::NotFinite { .. } => Self::caused_by(ErrorKind::Diverged, error),
            _ => Self::caused_by(ErrorKind::Config, error),
        }
    }
}

impl From<NnError> for Error {
    fn from(error: NnError) -> Self {
        match error {
            NnError::Torch(error) => error.into(),
            NnError::Read { .. } => Self::caused_by(ErrorKind::Storage, error),
            _ => Self::caused_by(ErrorKind::Config, error),
        }
    }
}

impl From<CommError> for Error {
    fn from(error: CommError) -> Self {
        Self::caused_by(ErrorKind::Internal, error)
    }
}

impl From<DrawError> for Error {
    fn from(error: DrawError) -> Self {
        Self::caused_by(ErrorKind::Internal, error)
    }
}
