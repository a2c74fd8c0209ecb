//! The course of the learning rate.

use serde::{Deserialize, Serialize};

/// Learning rate after warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LrShape {
    /// Stays at its peak.
    Constant,
    /// Falls along half a cosine to 0 at the last step.
    Cosine,
}
