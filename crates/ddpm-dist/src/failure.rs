//! How commands fail: one sentence on what is wrong, one with the fix, and a documented exit code.

mod libtorch;

use std::fmt;

use ddpm_checkpoint::CheckpointError;
use ddpm_comm::abort;
use ddpm_data::DataError;

pub use libtorch::{relieve_by_batch, relieve_with};

/// Exit codes of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Something the program did not foresee.
    Internal = 1,
    /// Bad usage or configuration.
    Usage = 2,
    /// Refused to resume.
    ResumeRefused = 3,
    /// The store or the data failed.
    Storage = 4,
    /// Training diverged.
    Diverged = 5,
    /// There is not enough memory, of the machine or of a GPU.
    OutOfMemory = 6,
    /// Stopped on request after saving.
    Stopped = 75,
}

impl Exit {
    /// The process's exit status.
    pub fn code(self) -> i32 {
        self as i32
    }
}

/// A command's failure.
#[derive(Debug)]
pub struct Failure {
    /// Which exit status it gets.
    pub exit: Exit,
    /// What to tell the user.
    pub message: String,
    /// Whether every rank returns this very failure, so that all may leave in order. Else the rank that has it must
    /// end the others: they would wait for it.
    pub everywhere: bool,
}

impl Failure {
    /// A failure with a message made for users.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string(), everywhere: false }
    }

    /// This failure, which every rank returns alike.
    pub fn everywhere(self) -> Self {
        Self { everywhere: true, ..self }
    }

    /// This failure, and the file whose content has it.
    pub fn within(self, path: &std::path::Path) -> Self {
        Self { message: format!("{}: {}", path.display(), self.message), ..self }
    }

    /// Ends the run for all ranks, where this one has no other way to tell them.
    pub fn end_all(&self) -> ! {
        abort(self.exit.code(), &format!("error: {self}"))
    }

    /// Bad usage or configuration.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Something the program did not foresee.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(Exit::Internal, message)
    }

    /// A file that could not be written or read.
    pub fn file(path: &std::path::Path, error: impl fmt::Display) -> Self {
        Self::new(
            Exit::Storage,
            format!("{}: {error}; check the path, its permissions and the free space", path.display()),
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// A library's message, followed by the command that helps.
fn with_advice(error: &impl fmt::Display, advice: &str) -> String {
    format!("{}; {advice}.", error.to_string().trim_end_matches('.'))
}

impl From<ddpm_config::Error> for Failure {
    fn from(error: ddpm_config::Error) -> Self {
        Self::usage(error)
    }
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        match &error {
            DataError::Setting(_) => Self::usage(error),
            DataError::MissingFile { .. } => {
                Self::new(Exit::Storage, with_advice(&error, "scripts/datasets.sh downloads it"))
            }
            DataError::Vanished { .. } => {
                Self::new(Exit::Storage, with_advice(&error, "or resume without it, with --allow-change data"))
            }
            DataError::Image { .. } => {
                let advice = "after a removal, resume with --allow-change data";
                Self::new(Exit::Storage, with_advice(&error, advice))
            }
            _ => Self::new(Exit::Storage, error),
        }
    }
}

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Self {
        match &error {
            // Two jobs write to one store: this one must stop.
            CheckpointError::Held { uri, .. } => {
                let advice = format!("if it was killed, `ddpm-dist checkpoints unlock {uri}` frees the store");
                Self::new(Exit::ResumeRefused, with_advice(&error, &advice))
            }
            CheckpointError::Fenced { .. } | CheckpointError::LeaseLost { .. } => Self::new(Exit::ResumeRefused, error),
            CheckpointError::DamagedLease { uri, .. } => {
                let advice = format!("`ddpm-dist checkpoints unlock --force {uri}` does so");
                Self::new(Exit::Storage, with_advice(&error, &advice))
            }
            CheckpointError::Address { .. } | CheckpointError::Unconditional { .. } => Self::usage(error),
            _ => Self::new(Exit::Storage, error),
        }
    }
}

impl From<ddpm_diffusion::DiffusionError> for Failure {
    fn from(error: ddpm_diffusion::DiffusionError) -> Self {
        match error {
            ddpm_diffusion::DiffusionError::Torch(error) => error.into(),
            ddpm_diffusion::DiffusionError::Model { t, source } => match source.downcast::<tch::TchError>() {
                Ok(error) => (*error).into(),
                Err(source) => Self::internal(format!("the network failed at timestep {t}: {source}")),
            },
            _ => Self::usage(error),
        }
    }
}

impl From<ddpm_eval::EvalError> for Failure {
    fn from(error: ddpm_eval::EvalError) -> Self {
        match error {
            ddpm_eval::EvalError::Torch(error) => error.into(),
            ddpm_eval::EvalError::Diffusion(error) => error.into(),
            _ => Self::usage(error),
        }
    }
}

impl From<ddpm_nn::NnError> for Failure {
    fn from(error: ddpm_nn::NnError) -> Self {
        match error {
            ddpm_nn::NnError::Torch(error) => error.into(),
            ddpm_nn::NnError::Read { .. } => Self::new(Exit::Storage, error),
            _ => Self::usage(error),
        }
    }
}

impl From<ddpm_comm::CommError> for Failure {
    fn from(error: ddpm_comm::CommError) -> Self {
        Self::internal(error)
    }
}

impl From<tch::TchError> for Failure {
    fn from(error: tch::TchError) -> Self {
        Self::of_libtorch(&error.to_string())
    }
}
