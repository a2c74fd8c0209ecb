//! The error for a picture that cannot be drawn.

/// Why a picture cannot be drawn: one sentence about the problem, and one about the fix.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DrawError(pub(crate) String);
