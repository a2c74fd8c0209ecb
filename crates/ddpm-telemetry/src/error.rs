//! Why a picture cannot be drawn.

/// Why a picture cannot be drawn: one sentence on what is wrong, one with the fix.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DrawError(pub(crate) String);
