//! The U-Net of Ho et al. (2020) and Nichol & Dhariwal (2021), laid out and named as diffusers' UNet2DModel.

mod blocks;
mod config;

use tch::Tensor;
use tch_ext::Activation;

pub use config::UNetConfig;

use crate::NnError;
use crate::arena::{Layout, Weights};
use crate::layers::{Conv2d, Embedding, GroupNorm, Linear, Scope, Start};
use crate::network::Inputs;
use crate::time::sinusoidal_embedding;
use blocks::{BlockConfig, Down, Mid, Pass, Up};

/// A U-Net without its numbers; see [`Layout`] and [`Weights`].
#[derive(Debug)]
pub struct UNet {
    config: UNetConfig,
    conv_in: Conv2d,
    time_1: Linear,
    time_2: Linear,
    classes: Option<Embedding>,
    down: Vec<Down>,
    mid: Mid,
    up: Vec<Up>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl UNet {
    /// Declares the network's parameters, in diffusers' names, in `layout`.
    ///
    /// # Errors
    /// The configuration contradicts itself.
    pub fn new(config: UNetConfig, layout: &mut Layout) -> Result<Self, NnError> {
        config.check()?;
        let mut root = Scope::root(layout);
        let channels = &config.channels;
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let levels = channels.len();
        let width = 4 * first;
        let block = BlockConfig::of(&config, width);

        let conv_in = Conv2d::new(&mut root.sub("conv_in"), config.in_channels, first, 3, Start::Default);
        let mut time = root.sub("time_embedding");
        let time_1 = Linear::new(&mut time.sub("linear_1"), first, width, Start::Default);
        let time_2 = Linear::new(&mut time.sub("linear_2"), width, width, Start::Default);
        let classes = config.classes.map(|rows| Embedding::new(&mut root.sub("class_embedding"), rows, width));

        let mut dropouts = 0;
        let mut down = Vec::new();
        for level in 0..levels {
            let input = if level == 0 { first } else { channels[level - 1] };
            let scope = &mut root.sub(format_args!("down_blocks.{level}"));
            let shrinks = level + 1 < levels;
            down.push(Down::new(
                scope,
                &block,
                input,
                channels[level],
                config.attention[level],
                shrinks,
                &mut dropouts,
            ));
        }
        let mid = Mid::new(&mut root.sub("mid_block"), &block, last, &mut dropouts);
        let mut up = Vec::new();
        for step in 0..levels {
            let level = levels - 1 - step;
            let from_below = channels[(level + 1).min(levels - 1)];
            let skip_of_last = channels[level.saturating_sub(1)];
            let scope = &mut root.sub(format_args!("up_blocks.{step}"));
            let sides = blocks::UpChannels { from_below, output: channels[level], skip_of_last };
            up.push(Up::new(scope, &block, sides, config.attention[level], level > 0, &mut dropouts));
        }
        let norm_out = GroupNorm::new(&mut root.sub("conv_norm_out"), first, config.norm_groups, config.norm_eps);
        let conv_out = Conv2d::new(&mut root.sub("conv_out"), first, config.out_channels, 3, Start::Zero);
        Ok(Self { config, conv_in, time_1, time_2, classes, down, mid, up, norm_out, conv_out })
    }

    /// What it was built from.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// The network's prediction, `[B, out_channels, H, W]`.
    pub(crate) fn forward(&self, w: &Weights, inputs: &Inputs) -> Tensor {
        let c = &self.config;
        let sinusoid = sinusoidal_embedding(inputs.t, c.channels[0], c.flip_sin_to_cos, c.freq_shift as f64);
        let mut embedding = self.time_2.forward(w, &self.time_1.forward(w, &sinusoid).silu());
        if let (Some(table), Some(labels)) = (&self.classes, inputs.labels) {
            embedding += table.forward(w, labels);
        }
        // Every residual block starts by this SiLU: once here instead of once in each.
        let pass = Pass { w, embedding: embedding.silu(), dropout: inputs.dropout };

        let mut x = self.conv_in.forward(w, inputs.x);
        let mut skips = vec![x.shallow_clone()];
        for block in &self.down {
            x = block.forward(&pass, x, &mut skips);
        }
        x = self.mid.forward(&pass, &x);
        for block in &self.up {
            x = block.forward(&pass, x, &mut skips);
        }
        self.conv_out.forward(w, &self.norm_out.forward(w, &x, Activation::Silu))
    }
}
