//! The way down, which the U-Net and the classifier share.

use ddpm_spec::UNetSpec;
use tch::{Kind, TchError, Tensor};

use super::blocks::{Down, Mid, Pass, TIME_EMBEDDING};
use crate::arena::Weights;
use crate::dropout::{Dropout, IndexHashes};
use crate::inputs::Inputs;
use crate::layers::{Conv2d, Embedding, Linear, Scope, Start};
use crate::time::sinusoidal_embedding;

/// The embedding of the time (and class), the levels on the way down, and the bottom.
#[derive(Debug)]
pub(super) struct Encoder {
    conv_in: Conv2d,
    time_width: i64,
    time_scale: f64,
    cos_first: bool,
    freq_shift: f64,
    time_1: Linear,
    time_2: Linear,
    classes: Option<Embedding>,
    down: Vec<Down>,
    mid: Mid,
    hashes: IndexHashes,
}

/// The output of the bottom.
pub(super) struct Encoded<'a> {
    /// Shared with the blocks that follow.
    pub(super) pass: Pass<'a>,
    /// `[B, channels.last, h, w]`, at the lowest resolution.
    pub(super) x: Tensor,
    /// The output of each block on the way down, in that order.
    pub(super) skips: Vec<Tensor>,
}

impl Encoder {
    /// Declares the parameters of a checked configuration; `projections` collects the projection of the embedding for each
    /// residual block.
    pub(super) fn new(root: &mut Scope, config: &UNetSpec, projections: &mut Vec<Linear>) -> Self {
        let channels = &config.channels;
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let (sinusoids, width) = (config.sinusoids(), config.embedding());

        let conv_in = Conv2d::new(&mut root.sub("conv_in"), config.image.channels as i64, first, 3, Start::Default);
        let mut time = root.sub("time_embedding");
        let time_1 = Linear::new(&mut time.sub("linear_1"), sinusoids, width, Start::Default);
        let time_2 = Linear::new(&mut time.sub("linear_2"), width, width, Start::Default);
        let classes = config.classes.map(|rows| Embedding::new(&mut root.sub("class_embedding"), rows, width));
        let down = (0..channels.len())
            .map(|level| {
                let scope = &mut root.sub(format_args!("down_blocks.{level}"));
                let input = channels[level.saturating_sub(1)];
                let shrinks = level + 1 < channels.len();
                Down::new(scope, config, input, channels[level], config.attention[level], shrinks, projections)
            })
            .collect();
        let mid = Mid::new(&mut root.sub("mid_block"), config, last, projections);
        Self {
            conv_in,
            time_width: sinusoids,
            time_scale: config.time_scale,
            cos_first: config.flip_sin_to_cos,
            freq_shift: config.freq_shift as f64,
            time_1,
            time_2,
            classes,
            down,
            mid,
            hashes: IndexHashes::default(),
        }
    }

    /// The embedding of timesteps `t` `[B]`, to which that of the class is added: `[B, width]`.
    pub(super) fn time_embedding(&self, w: &Weights, t: &Tensor) -> Result<Tensor, TchError> {
        let t = t.f_to_kind(Kind::Float)?.f_mul_scalar(self.time_scale)?;
        let sinusoid = sinusoidal_embedding(&t, self.time_width, self.cos_first, self.freq_shift)?;
        self.time_2.forward(w, &self.time_1.forward(w, &sinusoid)?.f_silu()?)
    }

    pub(super) fn forward<'a>(
        &self,
        w: &'a Weights,
        inputs: &Inputs<'a>,
        checkpointed: &'a [bool],
    ) -> Result<Encoded<'a>, TchError> {
        let times = w.times().map(|times| times.at(inputs.t)).transpose()?;
        let known = times.as_ref().map(|times| times.of(TIME_EMBEDDING)).transpose()?.flatten();
        let mut embedding = known.map_or_else(|| self.time_embedding(w, inputs.t), Ok)?;
        if let (Some(table), Some(labels)) = (&self.classes, inputs.labels) {
            embedding = embedding.f_add_(&table.forward(w, labels)?)?;
        }
        // Every residual block would begin with this SiLU: it is computed once here.
        let dropout = inputs.dropout.map(|keys| Dropout::new(keys, &self.hashes));
        let pass = Pass { w, embedding: embedding.f_silu()?, times, dropout, checkpointed };

        // From images of one channel the result may come with the pixels adjacent.
        let mut x = tch_ext::channels_last(&self.conv_in.forward(w, inputs.x)?)?;
        let mut skips = vec![x.shallow_clone()];
        for (level, block) in self.down.iter().enumerate() {
            x = block.forward(&pass, level, x, &mut skips)?;
        }
        x = self.mid.forward(&pass, self.down.len() - 1, &x)?;
        Ok(Encoded { pass, x, skips })
    }
}
