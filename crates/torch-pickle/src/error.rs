//! What can go wrong in this crate.

/// Why a file was not read. The messages complete "cannot read FILE: ".
#[derive(Debug, thiserror::Error)]
pub enum PickleError {
    /// Bytes are missing, changed, or make no sense.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// The pickle names a function or class that a state dict has no use for.
    #[error("its pickle asks Python for `{0}`, which no state dict needs; nothing was run")]
    Global(String),
    /// A sound file, but not of a dictionary of tensors, or not in a form that is read here.
    #[error("{0}")]
    Unsupported(String),
}

impl PickleError {
    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
    }
}
