//! Turns errors of the libraries into what the user sees: the exit status, and remedies in terms of this program's
//! options.

use std::sync::{Mutex, PoisonError};

use ddpm_comm::abort;
use ddpm_model::{Error, ErrorKind, Failure, Learner, Remedy, Unsaid};
use ddpm_train::Program;

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
    /// There is not enough memory, on the machine or on a GPU.
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

impl From<ErrorKind> for Exit {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Internal => Self::Internal,
            ErrorKind::Config => Self::Usage,
            ErrorKind::ResumeRefused => Self::ResumeRefused,
            ErrorKind::Storage => Self::Storage,
            ErrorKind::Diverged => Self::Diverged,
            ErrorKind::OutOfMemory => Self::OutOfMemory,
            ErrorKind::Stopped => Self::Stopped,
        }
    }
}

/// How to reduce the memory that the current command needs, as a sentence without its full stop.
static RELIEF: Mutex<Option<String>> = Mutex::new(None);

/// Records how to reduce the memory that the current command needs, as a sentence without its full stop: the advice to
/// print if memory runs out.
pub fn relieve_with(advice: impl Into<String>) {
    *RELIEF.lock().unwrap_or_else(PoisonError::into_inner) = Some(advice.into());
}

/// [`relieve_with`] for a command whose forward passes take `batch` images each, as `--batch` says.
pub fn relieve_by_batch(batch: usize) {
    if batch > 1 {
        relieve_with(format!("Lower --batch, which is {batch}"));
    }
}

/// Ends the run on all ranks, from a rank that cannot reach the others in any other way.
pub fn end_all(error: &Error) -> ! {
    abort(Exit::from(error.kind()).code(), &format!("error: {error}{}", advice(error)))
}

/// The failure as the user sees it: what is wrong, and how to fix it.
pub fn worded(failure: &Failure) -> String {
    format!("{failure}{}", advice(failure.error()))
}

/// This program, as the trainer names it and ends failures.
pub fn program() -> Program {
    Program {
        name: concat!("ddpm-dist ", env!("CARGO_PKG_VERSION")).into(),
        word: |error| format!("{error}{}", advice(error)),
        exit_code: |kind| Exit::from(kind).code(),
    }
}

/// The sentence that follows the message.
fn advice(error: &Error) -> String {
    if error.kind() == ErrorKind::OutOfMemory {
        let relief = RELIEF.lock().unwrap_or_else(PoisonError::into_inner);
        let relief = relief.as_deref().unwrap_or("Take a machine with more memory, or end other programs on it");
        return format!(". {relief}");
    }
    let phrases: Vec<String> = error.remedies().iter().map(phrase).collect();
    let sentence = match phrases.as_slice() {
        [] => return String::new(),
        [only] => only.clone(),
        [first, second] => format!("{first}, or {second}"),
        [more @ .., last] => format!("{}, or {last}", more.join(", ")),
    };
    let (first, rest) = sentence.split_at(1);
    let stop = if error.to_string().ends_with('.') { "" } else { "." };
    format!("{stop} {}{rest}.", first.to_uppercase())
}

/// A remedy in terms of this program's command line.
fn phrase(remedy: &Remedy) -> String {
    let each = |option: &str, values: &[String]| {
        values.iter().map(|value| format!("{option} {value}")).collect::<Vec<_>>().join(" ")
    };
    match remedy {
        Remedy::Do(advice) => advice.clone(),
        Remedy::Set(pairs) => {
            let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("add {}", each("--set", &pairs))
        }
        Remedy::AllowChange(keys) if keys.iter().all(|key| key == ddpm_train::DATA) => {
            "resume with this one by --allow-change data, which begins a new epoch".into()
        }
        Remedy::AllowChange(keys) => format!("resume anyway with {}", each("--allow-change", keys)),
        Remedy::OtherRunDir => "start in another run.dir (--set run.dir=...)".into(),
        Remedy::Resume => "resume with --resume auto".into(),
        Remedy::StartAfresh => "start afresh with --resume never".into(),
        Remedy::ResumeWith(key, value) => format!("resume from them with --set {key}={value}"),
        Remedy::NameData => "name a configuration with --data".into(),
        Remedy::LeaveWeightsOut => "leave --weights out".into(),
        Remedy::ResumeWithout => "resume without it with --allow-change data, which begins a new epoch".into(),
        Remedy::ExportTensors => "export it for other programs with --format safetensors".into(),
        Remedy::Overwrite => "replace what an earlier command wrote with --overwrite".into(),
        Remedy::ThresholdSamples => "sample with --threshold instead".into(),
        Remedy::GuideByModel => "guide it away from a weaker model with --guide-model".into(),
        Remedy::LeaveGuidanceOut => "leave --guidance out".into(),
        Remedy::ComputeOnCpu => "compute on the CPU (train.device = \"cpu\" in training, else --device cpu)".into(),
        Remedy::AllowNondeterminism => "set train.deterministic to false in training".into(),
        Remedy::FetchData => "fetch it with scripts/datasets.sh".into(),
        Remedy::AllowRemoval => "after a removal, resume with --allow-change data".into(),
        Remedy::Unlock { uri, force: false } => {
            format!("if it was killed, free the store with `ddpm-dist checkpoints unlock {uri}`")
        }
        Remedy::Unlock { uri, force: true } => format!("use `ddpm-dist checkpoints unlock --force {uri}`"),
        Remedy::Describe(unsaid) => {
            let flags: Vec<&str> = unsaid.iter().map(|unsaid| flag(*unsaid)).collect();
            format!("describe the model with {}", flags.join(", "))
        }
        Remedy::Import(file) => format!("make a run of it with `ddpm-dist import {file} --out RUN`"),
        Remedy::SkipMismatched => "draw these tensors at random with --init-skip-mismatched".into(),
        Remedy::RunOf(learner) => format!("name a run of `{}`", command(*learner)),
        Remedy::ResumeAs(learner) => format!("resume with `{}`", command(*learner)),
    }
}

/// The option of `import` that says this.
fn flag(unsaid: Unsaid) -> &'static str {
    match unsaid {
        Unsaid::ImageSize => "--image-size",
        Unsaid::Heads => "--num-heads or --num-head-channels",
        Unsaid::AttentionOrder => "--use-new-attention-order",
        Unsaid::DiffusionSteps => "--diffusion-steps",
        Unsaid::NoiseSchedule => "--noise-schedule",
        Unsaid::RescaleTimesteps => "--rescale-timesteps",
    }
}

/// The command that trains this.
pub fn command(learner: Learner) -> &'static str {
    match learner {
        Learner::Diffusion => "train",
        Learner::Classifier => "train-classifier",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies_are_one_sentence_in_the_options_of_the_program() {
        let error = Error::new(ErrorKind::ResumeRefused, "the checkpoint has other settings")
            .or(Remedy::Do("set them back".into()))
            .or(Remedy::OtherRunDir)
            .or(Remedy::AllowChange(vec!["train.lr".into(), "ema.rates".into()]));
        let failure = Failure::from(error);
        assert_eq!(
            worded(&failure),
            "the checkpoint has other settings. Set them back, start in another run.dir (--set run.dir=...), or resume \
             anyway with --allow-change train.lr --allow-change ema.rates."
        );
        assert_eq!(worded(&Failure::from(Error::config("no such preset"))), "no such preset");
        relieve_by_batch(64);
        let memory = Failure::from(Error::new(ErrorKind::OutOfMemory, "out of memory on the GPU"));
        assert_eq!(worded(&memory), "out of memory on the GPU. Lower --batch, which is 64");
    }
}
