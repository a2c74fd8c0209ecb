//! A pipeline as diffusers saves it: `model_index.json`, a U-Net, a scheduler.

use ddpm_nn::{Architecture, UNetSpec};
use ddpm_spec::Variance;
use serde_json::{Value, json};

use super::contents::{Contents, DIFFUSERS_VERSION};
use super::{scheduler, unet};
use crate::error::{Error, Remedy};
use crate::model::Model;

/// The files of a `DDPMPipeline`. If the model has a learned variance, they include a `DDIMPipeline` of the network
/// without its variance channels, because diffusers' deterministic schedulers do not remove these from its output.
/// Refuses a model that diffusers cannot represent.
pub(super) fn contents(model: &Model) -> Result<Contents, Error> {
    let Architecture::UNet(spec) = &model.architecture else {
        let model = &model.description;
        let message = format!("{model}: diffusers has no such network; its UNet2DModel is model.kind = \"unet\" only");
        return Err(Error::config(message).or(Remedy::ExportTensors));
    };
    let mut documents = vec![
        ("model_index.json", index("DDPMPipeline", "DDPMScheduler")),
        ("unet/config.json", unet::config(spec)?),
        ("scheduler/scheduler_config.json", scheduler::ddpm(model)?),
    ];
    let mean_only = match model.diffusion.spec().variance {
        Variance::FixedSmall | Variance::FixedLarge => None,
        Variance::LearnedRange => {
            let channels = spec.image.channels as i64;
            documents.extend([
                ("ddim/model_index.json", index("DDIMPipeline", "DDIMScheduler")),
                ("ddim/unet/config.json", unet::config(&UNetSpec { out_channels: channels, ..spec.clone() })?),
                ("ddim/scheduler/scheduler_config.json", scheduler::ddim(model)?),
            ]);
            Some(("ddim/unet/diffusion_pytorch_model", channels))
        }
    };
    Ok(Contents { documents, weights: "unet/diffusion_pytorch_model", mean_only })
}

fn index(pipeline: &str, scheduler: &str) -> Value {
    json!({
        "_class_name": pipeline,
        "_diffusers_version": DIFFUSERS_VERSION,
        "scheduler": ["diffusers", scheduler],
        "unet": ["diffusers", "UNet2DModel"],
    })
}
