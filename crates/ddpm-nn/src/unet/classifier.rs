//! A classifier of noised images on the U-Net's way down (Dhariwal & Nichol 2021, section 4).

use ddpm_spec::{ClassifierSpec, ImageShape, Naming};
use tch::{TchError, Tensor};
use tch_ext::Activation;

use super::encoder::Encoder;
use crate::NnError;
use crate::arena::{Layout, Weights};
use crate::inputs::Inputs;
use crate::layers::{GroupNorm, Linear, Scope, Start};
use crate::module::Module;

/// A classifier without its weights: the U-Net's way down and bottom, then norm, SiLU, the mean over all positions and
/// a linear map. The mean is the simplest of Dhariwal & Nichol's heads; their best pools by attention, but here the
/// bottom attends over all positions already.
#[derive(Debug)]
pub struct Classifier {
    config: ClassifierSpec,
    encoder: Encoder,
    norm_out: GroupNorm,
    head: Linear,
    /// Of the embedding, for each residual block.
    projections: Vec<Linear>,
}

impl Classifier {
    /// Declares the parameters in `layout`: the encoder's under the U-Net's names, the head's as `conv_norm_out` and
    /// `classifier`.
    ///
    /// # Errors
    /// The network cannot be built: see [`ClassifierSpec::validate`].
    pub fn new(config: ClassifierSpec, layout: &mut Layout) -> Result<Self, NnError> {
        config.validate(Naming::PLAIN)?;
        let unet = &config.encoder;
        let mut root = Scope::root(layout);
        let mut projections = Vec::new();
        let encoder = Encoder::new(&mut root, unet, &mut projections);
        let last = unet.channels[unet.channels.len() - 1];
        let norm_out = GroupNorm::new(&mut root.sub("conv_norm_out"), last, unet.norm_groups, unet.norm_eps);
        // At zero, so that every class has the same probability at first.
        let head = Linear::new(&mut root.sub("classifier"), last, config.classes, Start::Zero);
        Ok(Self { config, encoder, norm_out, head, projections })
    }

    /// What it was built from.
    pub fn config(&self) -> &ClassifierSpec {
        &self.config
    }
}

impl Module for Classifier {
    fn image(&self) -> ImageShape {
        self.config.encoder.image
    }

    fn dropout_layers(&self) -> usize {
        self.projections.len()
    }

    fn forward(&self, w: &Weights, inputs: &Inputs, checkpointed: &[bool]) -> Result<Tensor, TchError> {
        let features = self.norm_out.forward(w, &self.encoder.forward(w, inputs, checkpointed)?.x, Activation::Silu)?;
        self.head.forward(w, &features.f_mean_dim([2i64, 3].as_slice(), false, None)?)
    }
}
