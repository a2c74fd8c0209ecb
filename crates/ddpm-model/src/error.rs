//! Errors of opening, drawing and training: a kind that decides what happens next, a one-sentence message, and
//! remedies.

use std::error::Error as StdError;
use std::fmt;
use std::path::Path;

use ddpm_comm::{Agreed, World, abort};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::learner::Learner;
use crate::unsaid::Unsaid;

/// The kind of a failure. A program maps each kind to its exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// An unexpected fault of the program or of the machine.
    Internal,
    /// The configuration or the caller's request is not valid.
    Config,
    /// The checkpoint belongs to another run, or another job writes to the store.
    ResumeRefused,
    /// The store, a file or the data failed.
    Storage,
    /// A network produced values that are not finite.
    Diverged,
    /// There is not enough memory, on the machine or on a GPU.
    OutOfMemory,
    /// Stopped on request.
    Stopped,
}

/// An action that would fix an error. The library does not know the options of the program that uses it, so the
/// program turns each remedy into text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Remedy {
    /// Advice that does not involve an option, phrased as the rest of a sentence: `set them back`.
    Do(String),
    /// Set these keys to these values.
    Set(Vec<(String, String)>),
    /// Let these keys differ from the checkpoint's. `data` stands for the data set and all keys of `[data]`.
    AllowChange(Vec<String>),
    /// Start in another `run.dir`.
    OtherRunDir,
    /// Resume from the newest checkpoint.
    Resume,
    /// Start from step 0, although the run directory already has logged steps.
    StartAfresh,
    /// Resume from the checkpoints that are found when this key is set to this value.
    ResumeWith(String, String),
    /// Name the configuration that describes the data.
    NameData,
    /// Do not choose weights: there is only one set.
    LeaveWeightsOut,
    /// Resume without a file that is gone.
    ResumeWithout,
    /// Export a model's tensors for other programs than diffusers.
    ExportTensors,
    /// Replace what an earlier command wrote.
    Overwrite,
    /// Threshold images dynamically when they are drawn.
    ThresholdSamples,
    /// Guide by a weaker model.
    GuideByModel,
    /// Do not guide.
    LeaveGuidanceOut,
    /// Compute on the CPU.
    ComputeOnCpu,
    /// In training, allow nondeterministic operations.
    AllowNondeterminism,
    /// Download the data set with the project's script.
    FetchData,
    /// After the user has removed a file, let the data set differ from the checkpoint's.
    AllowRemoval,
    /// Unlock this store if the job that holds its lease was killed. With `force`, break the lease regardless of its
    /// content.
    Unlock {
        /// The store.
        uri: String,
        /// Whether the lease has to be broken.
        force: bool,
    },
    /// Say this about a model that is imported.
    Describe(Vec<Unsaid>),
    /// Import this file.
    Import(String),
    /// Draw the tensors that do not fit at random.
    SkipMismatched,
    /// Name a run that trained this kind of model.
    RunOf(Learner),
    /// Resume with the command that trains this kind of model.
    ResumeAs(Learner),
}

/// A failure of one rank.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    remedies: Vec<Remedy>,
    cause: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error with its message: what is wrong, in one sentence, followed by the fix if that does not involve an
    /// option.
    pub fn new(kind: ErrorKind, message: impl fmt::Display) -> Self {
        Self { kind, message: message.to_string(), remedies: Vec::new(), cause: None }
    }

    /// An error of a library, with its own message.
    pub fn caused_by(kind: ErrorKind, cause: impl StdError + Send + Sync + 'static) -> Self {
        Self { kind, message: cause.to_string(), remedies: Vec::new(), cause: Some(Box::new(cause)) }
    }

    /// An error in the configuration.
    pub fn config(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// An unexpected fault of the program or of the machine.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// A file that could not be written or read.
    pub fn file(path: &Path, error: impl StdError + Send + Sync + 'static) -> Self {
        let message = format!("{}: {error}; check the path, its permissions and the free space", path.display());
        Self { cause: Some(Box::new(error)), ..Self::new(ErrorKind::Storage, message) }
    }

    /// This error with one more remedy.
    pub fn or(mut self, remedy: Remedy) -> Self {
        self.remedies.push(remedy);
        self
    }

    /// An agreed error, with its rank in its message.
    pub fn named(agreed: Agreed<Error>) -> Self {
        Self { message: agreed.to_string(), ..agreed.into_error() }
    }

    /// This error with the path of the file in which it was found.
    pub fn within(self, path: &Path) -> Self {
        Self { message: format!("{}: {}", path.display(), self.message), ..self }
    }

    /// This error with the message of `other` as one more sentence.
    pub fn and_also(self, other: &impl fmt::Display) -> Self {
        Self { message: format!("{} Also, {other}", self.message), ..self }
    }

    /// The kind of the failure.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Alternative remedies; any one of them would fix the error.
    pub fn remedies(&self) -> &[Remedy] {
        &self.remedies
    }

    /// The underlying error of a library; available only on the rank where it occurred.
    pub fn cause<T: StdError + 'static>(&self) -> Option<&T> {
        self.cause.as_deref()?.downcast_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

/// A cause that occurred on another rank: its message, and its own cause in turn.
#[derive(Debug, Serialize, Deserialize)]
struct RemoteCause {
    message: String,
    cause: Option<Box<RemoteCause>>,
}

impl RemoteCause {
    fn of(error: &dyn StdError) -> Self {
        Self { message: error.to_string(), cause: error.source().map(|cause| Box::new(Self::of(cause))) }
    }
}

impl fmt::Display for RemoteCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for RemoteCause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

/// The serialized form in which an error is sent to other ranks.
#[derive(Serialize, Deserialize)]
struct Sent {
    kind: ErrorKind,
    message: String,
    remedies: Vec<Remedy>,
    cause: Option<RemoteCause>,
}

impl Serialize for Error {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let cause = self.cause.as_deref().map(|cause| RemoteCause::of(cause));
        let sent = Sent { kind: self.kind, message: self.message.clone(), remedies: self.remedies.clone(), cause };
        sent.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Error {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Sent { kind, message, remedies, cause } = Sent::deserialize(deserializer)?;
        Ok(Self { kind, message, remedies, cause: cause.map(|cause| Box::new(cause) as _) })
    }
}

/// The failure of a collective operation, as seen by one rank.
#[derive(Debug)]
pub enum Failure {
    /// Every rank returns this failure, so all can shut down in order.
    Agreed(Agreed<Error>),
    /// Only this rank knows of the failure. The other ranks wait in a collective, or soon will, so the caller must
    /// abort them.
    Alone(Error),
}

impl Failure {
    /// The error itself.
    pub fn error(&self) -> &Error {
        match self {
            Self::Agreed(agreed) => agreed.error(),
            Self::Alone(error) => error,
        }
    }

    /// The kind of the failure.
    pub fn kind(&self) -> ErrorKind {
        self.error().kind
    }

    /// Ends this process with exit status `code`: in order if all ranks return this failure, after rank 0 has printed it;
    /// else by aborting the others, which would wait for this rank. For programs without a command line of their own.
    pub fn end(&self, world: World, code: i32) -> ! {
        match self {
            Self::Alone(error) => abort(code, &format!("error: {error}")),
            Self::Agreed(agreed) if world.rank() == 0 => eprintln!("error: {agreed}"),
            Self::Agreed(_) => {}
        }
        world.finish(code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agreed(agreed) => agreed.fmt(f),
            Self::Alone(error) => error.fmt(f),
        }
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error().source()
    }
}

impl From<Agreed<Error>> for Failure {
    fn from(agreed: Agreed<Error>) -> Self {
        Self::Agreed(agreed)
    }
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Alone(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reaches_other_ranks_with_its_kind_its_remedies_and_its_causes() {
        let io = std::io::Error::other("disk on fire");
        let error = Error::file(Path::new("runs/a"), io).or(Remedy::AllowChange(vec!["data".into()]));
        assert!(error.cause::<std::io::Error>().is_some());
        let received: Error = serde_json::from_str(&serde_json::to_string(&error).unwrap()).unwrap();
        assert_eq!((received.kind(), received.to_string()), (ErrorKind::Storage, error.to_string()));
        assert_eq!(received.remedies(), error.remedies());
        assert_eq!(received.source().unwrap().to_string(), "disk on fire");
    }
}
