//! What can go wrong between a path and a batch.

use std::io;
use std::path::{Path, PathBuf};

use ddpm_spec::SpecError;

use crate::unread::Unread;

/// An error of this crate: what is wrong, in which file, and how to fix it.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The operating system could not read a file or a folder.
    #[error("{}: cannot be read ({source}). Check that the path is correct and readable.", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file or a folder that describes the data set is invalid.
    #[error("{}: {reason}.", path.display())]
    Format {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and how to fix it.
        reason: String,
    },
    /// A folder does not have a standard file of its data set.
    #[error("{}: this folder contains no {name} (plain or .gz). Add it, or give the file itself.", path.display())]
    MissingFile {
        /// The folder.
        path: PathBuf,
        /// The name of the missing file.
        name: String,
    },
    /// An image file, or a file of many images, has disappeared since the data set was opened; this is never skipped.
    #[error("{}: this file has disappeared since the data set was opened. Restore it.", path.display())]
    Vanished {
        /// The image file.
        path: PathBuf,
    },
    /// A file of many images has changed since the data set was opened; this is never skipped.
    #[error("{}: this file has changed since the data set was opened. Restore it, or start again.", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// An object store does not return a file.
    #[error("{}: cannot be read: {reason}.", path.display())]
    Store {
        /// The address of the file.
        path: PathBuf,
        /// What is wrong, and what to do: sentences without the last full stop.
        reason: String,
    },
    /// The program was asked to stop while it waited for files of an object store; see [`heeding`](crate::heeding).
    #[error("stopped on request while waiting for the store of the data set; the same command starts again.")]
    Stopped,
    /// One image is permanently unusable; this is what [`crate::OnCorrupt::Skip`] skips.
    #[error(
        "{}: {reason}. Replace or remove the file, or set data.on_corrupt = \"skip\".",
        path.display()
    )]
    Image {
        /// The image file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Too many consecutive images were unusable for skipping to make sense.
    #[error("{tried} images in a row cannot be used, the last of them {last}. Check data.path.")]
    NothingDecodes {
        /// The number of ids tried.
        tried: u64,
        /// The last one and what is wrong with it.
        last: String,
    },
    /// A file or folder cannot be written.
    #[error("{}: cannot be written ({source}). Make room, or give another folder.", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A specification that cannot be opened.
    #[error("{0}.")]
    Spec(#[from] SpecError),
    /// Settings that are inconsistent with each other or with the data.
    #[error("{0}.")]
    Setting(String),
    /// A source was given an id beyond its end, or a buffer of the wrong length.
    #[error(
        "image {id} was requested with a buffer of {buffer} bytes. Ids must be below {len}, and an image has {bytes} bytes."
    )]
    Request {
        /// The requested id.
        id: u64,
        /// Number of images.
        len: u64,
        /// Length of the buffer.
        buffer: usize,
        /// Length of one image.
        bytes: usize,
    },
    /// A loader thread could not be started.
    #[error("a loader thread could not be started ({0}). Lower data.workers or raise the limit on processes.")]
    Thread(#[source] io::Error),
    /// What a batch needs besides its images could not be prepared.
    #[error("the batch of step {step} could not be prepared ({source}).")]
    Prepare {
        /// The step of the batch.
        step: u64,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A loader thread panicked: a bug in this crate or in a decoder.
    #[error("decoding the batch of step {step} panicked. Please report this with the file that causes it.")]
    Panicked {
        /// The step whose batch is lost.
        step: u64,
    },
}

impl DataError {
    /// The message without the advice if a single image is at fault: for lists of several, and if the advice has
    /// already been followed.
    pub fn fault(&self) -> String {
        match self {
            DataError::Image { path, reason } => format!("{}: {reason}", path.display()),
            other => other.to_string(),
        }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> DataError {
        move |source| match source.downcast::<Unread>() {
            Ok(unread) => unread.into(),
            Err(source) => DataError::Io { path: path.to_path_buf(), source },
        }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> DataError {
        move |source| DataError::Write { path: path.to_path_buf(), source }
    }

    pub(crate) fn format(path: &Path, reason: impl Into<String>) -> DataError {
        DataError::Format { path: path.to_path_buf(), reason: reason.into() }
    }
}

impl From<Unread> for DataError {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Vanished(path) => DataError::Vanished { path },
            Unread::Changed(path) => DataError::Changed { path },
            Unread::Store { path, reason } => DataError::Store { path, reason },
            Unread::Stopped => DataError::Stopped,
        }
    }
}
