//! What happens when a save fails, or is due before the last one is done.

use serde::{Deserialize, Serialize};

/// What happens after a save has failed for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The failure is logged and counted; training continues.
    Warn,
    /// The run ends.
    Abort,
}

/// What happens when a save is due while the last one is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenBusy {
    /// Training waits until the last one is done.
    Wait,
    /// The save is skipped.
    Skip,
}
