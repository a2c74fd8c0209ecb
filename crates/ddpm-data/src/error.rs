//! What can go wrong between a path and a batch.

use std::io;
use std::path::{Path, PathBuf};

use ddpm_spec::SpecError;

/// An error of this crate: what is wrong, with the file it is about, and how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The operating system would not give us a file or a folder.
    #[error("{}: cannot be read ({source}). Check that the path is right and that you may read it.", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file or a folder that describes the data set is not what it should be.
    #[error("{}: {reason}.", path.display())]
    Format {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and how to mend it.
        reason: String,
    },
    /// One image cannot be used, now or ever; this is what [`crate::OnCorrupt::Skip`] steps over.
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
    /// An image has disappeared while the data set is open: the images that a run sees would change.
    #[error("{}: this image has gone since the data set was opened. Bring it back.", path.display())]
    Gone {
        /// The image file.
        path: PathBuf,
    },
    /// So many images in a row were corrupt that skipping is no answer.
    #[error("{tried} images in a row cannot be used, the last of them {last}. Check data.path.")]
    NothingDecodes {
        /// How many ids were tried.
        tried: u64,
        /// The last one and what is wrong with it.
        last: String,
    },
    /// A data set that cannot be opened for what its specification says.
    #[error("{0}.")]
    Spec(#[from] SpecError),
    /// Settings that contradict each other or the data.
    #[error("{0}.")]
    Setting(String),
    /// A source was asked for an id it does not have, or given a buffer of the wrong length.
    #[error(
        "image {id} was asked for with a buffer of {buffer} bytes. Ids run to {len} (exclusive), an image has {bytes} bytes."
    )]
    Request {
        /// The id asked for.
        id: u64,
        /// Number of images.
        len: u64,
        /// Length of the buffer given.
        buffer: usize,
        /// Length of one image.
        bytes: usize,
    },
    /// A decoding thread could not be started.
    #[error("a loader thread cannot be started ({0}). Lower data.workers or raise the limit on processes.")]
    Thread(#[source] io::Error),
    /// A decoding thread panicked: a bug, in this crate or in a decoder.
    #[error("decoding the batch of step {step} panicked. Please report this with the file that causes it.")]
    Panicked {
        /// The step whose batch is lost.
        step: u64,
    },
}

impl DataError {
    /// What is wrong, without advice where there is an image to blame: for lists of several, and where its advice has been
    /// taken already.
    pub fn fault(&self) -> String {
        match self {
            DataError::Image { path, reason } => format!("{}: {reason}", path.display()),
            other => other.to_string(),
        }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> DataError {
        move |source| DataError::Io { path: path.to_path_buf(), source }
    }

    pub(crate) fn format(path: &Path, reason: impl Into<String>) -> DataError {
        DataError::Format { path: path.to_path_buf(), reason: reason.into() }
    }
}
