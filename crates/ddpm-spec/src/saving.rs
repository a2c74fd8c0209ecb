//! What a save does that fails or comes due too early.

use serde::{Deserialize, Serialize};

/// What a save that failed for good does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Is logged and counted; training continues.
    Warn,
    /// Ends the run.
    Abort,
}

/// What a save does that comes due while the last one is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenBusy {
    /// Holds training until the last one is done.
    Wait,
    /// Is left out.
    Skip,
}
