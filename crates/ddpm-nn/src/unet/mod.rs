//! The U-Net of Ho et al. (2020) and Nichol & Dhariwal (2021), laid out and named as diffusers' UNet2DModel, and the
//! classifier on its way down.

mod attention;
mod blocks;
mod classifier;
mod encoder;

use ddpm_spec::{ImageShape, Naming, UNetSpec};
use tch::{TchError, Tensor};
use tch_ext::Activation;

pub use classifier::Classifier;

use crate::NnError;
use crate::arena::{Layout, Weights};
use crate::inputs::Inputs;
use crate::layers::{Conv2d, GroupNorm, Linear, Scope, Start};
use crate::module::Module;
use blocks::{Up, UpChannels};
use encoder::{Encoded, Encoder};

/// A U-Net without its weights; see [`Layout`] and [`Weights`].
#[derive(Debug)]
pub struct UNet {
    config: UNetSpec,
    encoder: Encoder,
    up: Vec<Up>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
    /// Of the embedding, for each residual block.
    projections: Vec<Linear>,
}

impl UNet {
    /// Declares the network's parameters, in diffusers' names, in `layout`.
    ///
    /// # Errors
    /// The network cannot be built.
    pub fn new(config: UNetSpec, layout: &mut Layout) -> Result<Self, NnError> {
        config.validate(Naming::PLAIN)?;
        let mut root = Scope::root(layout);
        let mut projections = Vec::new();
        let encoder = Encoder::new(&mut root, &config, &mut projections);
        let channels = &config.channels;
        let (first, levels) = (channels[0], channels.len());
        let mut up = Vec::new();
        for step in 0..levels {
            let level = levels - 1 - step;
            let from_below = channels[(level + 1).min(levels - 1)];
            let skip_of_last = channels[level.saturating_sub(1)];
            let scope = &mut root.sub(format_args!("up_blocks.{step}"));
            let sides = UpChannels { from_below, output: channels[level], skip_of_last };
            up.push(Up::new(scope, &config, sides, config.attention[level], level > 0, &mut projections));
        }
        let norm_out = GroupNorm::new(&mut root.sub("conv_norm_out"), first, config.norm_groups, config.norm_eps);
        let conv_out = Conv2d::new(&mut root.sub("conv_out"), first, config.out_channels, 3, Start::Zero);
        Ok(Self { config, encoder, up, norm_out, conv_out, projections })
    }

    /// What it was built from.
    pub fn config(&self) -> &UNetSpec {
        &self.config
    }
}

impl Module for UNet {
    fn image(&self) -> ImageShape {
        self.config.image
    }

    fn classes(&self) -> Option<i64> {
        self.config.classes
    }

    fn time_tables(&self, w: &Weights, t: &Tensor) -> Result<Vec<Tensor>, TchError> {
        let embedding = self.encoder.time_embedding(w, t)?;
        if self.config.classes.is_some() {
            return Ok(vec![embedding]);
        }
        let activated = embedding.f_silu()?;
        let projections = self.projections.iter().map(|projection| projection.forward(w, &activated));
        std::iter::once(Ok(embedding)).chain(projections).collect()
    }

    fn dropout_layers(&self) -> usize {
        self.projections.len()
    }

    fn forward(&self, w: &Weights, inputs: &Inputs, checkpointed: &[bool]) -> Result<Tensor, TchError> {
        let Encoded { pass, mut x, mut skips } = self.encoder.forward(w, inputs, checkpointed)?;
        for (level, block) in (0..self.up.len()).rev().zip(&self.up) {
            x = block.forward(&pass, level, x, &mut skips)?;
        }
        self.conv_out.forward(w, &self.norm_out.forward(w, &x, Activation::Silu)?)
    }
}
