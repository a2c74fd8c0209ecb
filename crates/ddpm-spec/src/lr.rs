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

impl LrShape {
    /// Whether the rate of a step depends on the number of steps of the whole run.
    pub fn depends_on_last_step(self) -> bool {
        match self {
            Self::Constant => false,
            Self::Cosine => true,
        }
    }
}
