//! How supervision ends: its exit code, and the message for the user.

use crate::account::Failure;
use crate::ending::{BAD_USAGE, STOPPED};

/// Exit codes of supervision alone: the job failed in the same way again; its restarts are used up, or its hosts gone.
const REPEATED: i32 = 7;
const GAVE_UP: i32 = 8;

/// How supervision ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The job did all of its steps.
    Done,
    /// It was stopped on request and has saved its state.
    Stopped,
    /// It was stopped on request, and failed before it had saved its state.
    Unsaved,
    /// Its command line or configuration is wrong.
    BadUsage,
    /// It failed twice at the same step with the same message, while all its hosts answered.
    Repeated(Failure),
    /// It failed after the last restart that is allowed.
    Exhausted,
    /// Its hosts did not answer.
    NoHosts,
}

impl Verdict {
    /// The exit code of supervision whose last job ended with `job`.
    pub fn exit_code(&self, job: Option<i32>) -> i32 {
        match self {
            Self::Done => 0,
            Self::Stopped => STOPPED,
            Self::Unsaved => job.unwrap_or(STOPPED),
            Self::BadUsage => BAD_USAGE,
            Self::Repeated(_) => REPEATED,
            Self::Exhausted | Self::NoHosts => GAVE_UP,
        }
    }

    /// Its name in events.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Stopped => "stopped",
            Self::Unsaved => "unsaved",
            Self::BadUsage => "bad_usage",
            Self::Repeated(_) => "repeated_failure",
            Self::Exhausted => "restarts_exhausted",
            Self::NoHosts => "no_hosts",
        }
    }

    /// The message for the user: what happened, and what to do.
    pub fn sentence(&self, job: Option<i32>) -> String {
        let code = job.unwrap_or_default();
        match self {
            Self::Done => "the job is done".into(),
            Self::Stopped => "stopped on request; the same command resumes from here".into(),
            Self::Unsaved => format!(
                "error: the job was asked to stop, and ended with exit code {code} before it had saved. The same \
                 command resumes from its last checkpoint"
            ),
            Self::BadUsage => {
                "error: the job's command line or configuration is wrong. Correct what its own message, above, names"
                    .into()
            }
            Self::Repeated(failure) => format!(
                "error: the job failed twice at step {} with the same message, so that another restart would not help. \
                 Remove the cause; the same command resumes. The message: {}",
                failure.step, failure.message
            ),
            Self::Exhausted => format!(
                "error: the job failed with exit code {code}, and its restarts are used up. Remove the cause, or allow \
                 more by --max-restarts; the same command resumes"
            ),
            Self::NoHosts => {
                "error: the hosts that answered had no room for the job for the whole of --window. Bring more of them \
                 back, or lower --min-ranks; the same command resumes"
                    .into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Origin;

    #[test]
    fn supervision_that_gives_up_has_codes_of_its_own() {
        let failure = Failure { step: 7, message: "broken".into(), origin: Origin::Run };
        for (verdict, code) in [
            (Verdict::Done, 0),
            (Verdict::Stopped, 75),
            (Verdict::Unsaved, 4),
            (Verdict::BadUsage, 2),
            (Verdict::Repeated(failure), 7),
            (Verdict::Exhausted, 8),
            (Verdict::NoHosts, 8),
        ] {
            assert_eq!(verdict.exit_code(Some(4)), code, "{verdict:?}");
            assert_eq!(verdict.sentence(Some(4)).starts_with("error: "), ![0, 75].contains(&code), "{verdict:?}");
        }
    }
}
