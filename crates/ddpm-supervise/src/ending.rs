//! How a job ended, according to its exit code.

use serde::Serialize;

/// Exit codes of the program: bad usage or configuration; stopped on request, after saving.
pub(crate) const BAD_USAGE: i32 = 2;
pub(crate) const STOPPED: i32 = 75;

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ending {
    /// It did all of its steps.
    Done,
    /// It was stopped on request and saved its state.
    Stopped,
    /// Its command line or configuration is wrong.
    BadUsage,
    /// Anything else.
    Failed,
}

impl Ending {
    /// What the exit code of a job means.
    pub fn of(code: i32) -> Self {
        match code {
            0 => Self::Done,
            BAD_USAGE => Self::BadUsage,
            STOPPED => Self::Stopped,
            _ => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Ending::{self, BadUsage, Done, Failed, Stopped};

    #[test]
    fn exit_codes_tell_how_a_job_ended() {
        assert_eq!([0, 2, 75, 1, 4, 137].map(Ending::of), [Done, BadUsage, Stopped, Failed, Failed, Failed]);
    }
}
