//! What an export consists of, in either format.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of diffusers whose keys are written.
pub(super) const DIFFUSERS_VERSION: &str = "0.42.1";

/// The format of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A directory that diffusers loads as a pipeline.
    Diffusers,
    /// Named tensors and a description of the network and its process, for any other program.
    Safetensors,
}

/// The files of an export that are not the same in every format.
pub(super) struct Contents {
    /// JSON documents by their path.
    pub(super) documents: Vec<(&'static str, Value)>,
    /// The path of the weights without its ending.
    pub(super) weights: &'static str,
    /// The path of the weights without the channels of a learned variance, and the number of channels that they keep.
    pub(super) mean_only: Option<(&'static str, i64)>,
}
