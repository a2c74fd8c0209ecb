//! The features by which images are compared, written as one string.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The features by which images are compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Features {
    /// `pixels`: the pixel values themselves.
    Pixels,
    /// The output of the TorchScript module in this file.
    File(String),
}

impl Features {
    /// A short name: `pixels`, or that of the file without folders and extension.
    pub fn name(&self) -> String {
        let Self::File(path) = self else { return self.to_string() };
        Path::new(path).file_stem().map_or_else(|| path.clone(), |stem| stem.to_string_lossy().into())
    }
}

impl From<String> for Features {
    fn from(text: String) -> Self {
        if text == "pixels" { Self::Pixels } else { Self::File(text) }
    }
}

impl From<Features> for String {
    fn from(features: Features) -> Self {
        features.to_string()
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pixels => "pixels",
            Self::File(path) => path,
        })
    }
}
