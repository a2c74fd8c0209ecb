//! A classifier of noised images on the U-Net's way down (Dhariwal & Nichol 2021, section 4).

use ddpm_spec::{ClassifierSpec, Naming};
use tch::{TchError, Tensor};
use tch_ext::Activation;

use super::encoder::Encoder;
use crate::NnError;
use crate::arena::{Layout, Weights};
use crate::inputs::Inputs;
use crate::layers::{GroupNorm, Linear, Scope, Start};

/// A classifier without its numbers: the U-Net's way down and bottom, then norm, SiLU, the mean over all positions and
/// a linear map. The mean is the simple choice among the heads of Dhariwal & Nichol, whose best pools by attention:
/// the bottom attends over all positions already.
#[derive(Debug)]
pub struct Classifier {
    config: ClassifierSpec,
    encoder: Encoder,
    norm_out: GroupNorm,
    head: Linear,
}

impl Classifier {
    /// Declares the parameters in `layout`: the encoder's under the U-Net's names, the head's as `conv_norm_out` and
    /// `classifier`.
    ///
    /// # Errors
    /// The configuration contradicts itself, or there are fewer than two classes.
    pub fn new(config: ClassifierSpec, layout: &mut Layout) -> Result<Self, NnError> {
        config.validate(Naming::PLAIN)?;
        let unet = &config.encoder;
        let mut root = Scope::root(layout);
        let encoder = Encoder::new(&mut root, unet, &mut 0);
        let last = unet.channels[unet.channels.len() - 1];
        let norm_out = GroupNorm::new(&mut root.sub("conv_norm_out"), last, unet.norm_groups, unet.norm_eps);
        // At zero it starts out by giving each class the same probability.
        let head = Linear::new(&mut root.sub("classifier"), last, config.classes, Start::Zero);
        Ok(Self { config, encoder, norm_out, head })
    }

    /// What it was built from.
    pub fn config(&self) -> &ClassifierSpec {
        &self.config
    }

    /// Logits `[B, classes]`, whose log-softmax is log p(y | x_t).
    pub(crate) fn forward(&self, w: &Weights, inputs: &Inputs, checkpointed: &[bool]) -> Result<Tensor, TchError> {
        let features = self.norm_out.forward(w, &self.encoder.forward(w, inputs, checkpointed)?.x, Activation::Silu)?;
        self.head.forward(w, &features.f_mean_dim([2i64, 3].as_slice(), false, None)?)
    }
}
