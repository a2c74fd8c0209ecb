//! What an export consists of, in either format.

use ddpm_nn::Architecture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::diffusers;
use crate::error::{Error, Remedy};
use crate::model::Model;

/// The format of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A directory that diffusers loads as a pipeline.
    Diffusers,
    /// Named tensors and a description of the network and its process, for any other program.
    Safetensors,
}

/// The files of an export, without their weights.
pub(super) struct Contents {
    /// JSON documents by their path.
    pub(super) documents: Vec<(&'static str, Value)>,
    /// The path of the weights without its ending.
    pub(super) weights: &'static str,
    /// The path of the weights without the channels of a learned variance, and the number of channels that they keep.
    pub(super) mean_only: Option<(&'static str, i64)>,
}

impl Contents {
    /// The files of `model` in a format; refuses a model that the format cannot describe.
    pub(super) fn of(model: &Model, format: Format) -> Result<Self, Error> {
        match (format, &model.architecture) {
            (Format::Safetensors, _) => {
                Ok(Self { documents: vec![("config.json", described(model))], weights: "model", mean_only: None })
            }
            (Format::Diffusers, Architecture::UNet(spec)) => diffusers::contents(model, spec),
            (Format::Diffusers, Architecture::Small(_) | Architecture::Classifier(_)) => Err(Error::config(format!(
                "{}: diffusers has no such network, its UNet2DModel is only `model.kind = \"unet\"`",
                model.description
            ))
            .or(Remedy::ExportTensors)),
        }
    }
}

/// Everything that a program needs in order to use the tensors.
fn described(model: &Model) -> Value {
    let (process, spec) = (&model.diffusion, model.diffusion.spec());
    json!({
        "network": model.architecture,
        "null_class": model.null_class,
        "diffusion": {
            "timesteps": process.timesteps(),
            "betas": process.betas,
            "predict": spec.prediction,
            "variance": spec.variance,
            "clip": model.clips,
        },
    })
}
