//! Tensors and their description, for any program.

use serde_json::json;

use super::contents::Contents;
use crate::model::Model;

/// The files of a model with all that a program needs to know in order to use the tensors.
pub(super) fn contents(model: &Model) -> Contents {
    let (process, spec) = (&model.diffusion, model.diffusion.spec());
    let description = json!({
        "network": model.architecture,
        "null_class": model.null_class,
        "diffusion": {
            "timesteps": process.timesteps(),
            "betas": process.betas,
            "predict": spec.prediction,
            "variance": spec.variance,
            "clip": model.clips,
        },
    });
    Contents { documents: vec![("config.json", description)], weights: "model", mean_only: None }
}
