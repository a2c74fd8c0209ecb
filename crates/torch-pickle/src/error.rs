//! What can go wrong in this crate.

/// Why a file was refused. The messages complete "cannot read FILE: ".
#[derive(Debug, thiserror::Error)]
pub enum PickleError {
    /// Bytes are missing, changed, or invalid.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// The pickle names a function or class that a state dict does not need.
    #[error("its pickle asks Python for `{0}`, which no state dict needs; nothing was run")]
    Global(String),
    /// A valid file that does not contain a dictionary of tensors, or not in a supported form.
    #[error("{0}")]
    Unsupported(String),
}

impl PickleError {
    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
    }
}
