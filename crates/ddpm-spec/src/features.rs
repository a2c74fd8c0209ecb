//! The features by which images are compared, written as one string.

use std::fmt;

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
