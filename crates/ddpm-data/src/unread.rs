//! Why a file in an object store cannot be read, in a form that passes through the readers of formats.

use std::path::PathBuf;

/// Why a file in an object store cannot be read; none of it is a property of a single image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unread {
    /// It does not exist any more.
    #[error("{} has disappeared", .0.display())]
    Vanished(PathBuf),
    /// It is not the file that was opened.
    #[error("{} has changed", .0.display())]
    Changed(PathBuf),
    /// The store refuses, or does not respond.
    #[error("{}: {reason}", path.display())]
    Store {
        /// The address of the file.
        path: PathBuf,
        /// What is wrong, and what to do: sentences without the last full stop.
        reason: String,
    },
    /// The thread was to [stop](crate::heeding).
    #[error("stopped on request while waiting for the store of the data set")]
    Stopped,
}
