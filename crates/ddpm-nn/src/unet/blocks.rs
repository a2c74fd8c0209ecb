//! Blocks of the U-Net: residual blocks, and the down, bottom and up paths built from them and from attention.

use ddpm_spec::{MidAttention, UNetSpec};
use tch::{TchError, Tensor};
use tch_ext::{Activation, Normed};

use super::attention::Attention;
use crate::arena::Weights;
use crate::dropout::Dropout;
use crate::layers::{Conv2d, GroupNorm, Linear, Scope, Start};
use crate::prepared::TimeRows;

/// What all blocks share in one forward pass.
pub(super) struct Pass<'a> {
    pub(super) w: &'a Weights,
    /// SiLU of the time (and class) embedding, `[B, width]`.
    pub(super) embedding: Tensor,
    /// What was computed before for the timesteps, if anything: in inference, the projections of the embedding for each
    /// residual block, from [`FIRST_PROJECTION`] on.
    pub(super) times: Option<TimeRows<'a>>,
    pub(super) dropout: Option<Dropout>,
    /// Whether each level keeps only its layers' inputs for backward.
    pub(super) checkpointed: &'a [bool],
}

/// The tables of what depends on the timestep alone: the embedding of the time, then its projections for each residual
/// block, if no class is part of it.
pub(super) const TIME_EMBEDDING: usize = 0;
pub(super) const FIRST_PROJECTION: usize = 1;

/// A change of the resolution, without weights.
#[derive(Clone, Copy, Debug)]
enum Resample {
    /// Means of 2x2 pixels.
    Halve,
    /// Each pixel four times.
    Double,
}

impl Resample {
    fn apply(self, x: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Self::Halve => x.f_avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None),
            Self::Double => {
                let (height, width) = (x.size()[2], x.size()[3]);
                x.f_upsample_nearest2d([2 * height, 2 * width], None, None)
            }
        }
    }
}

/// Norm, SiLU, convolution, twice, with the embedding in between and a residual around.
#[derive(Clone, Copy, Debug)]
struct ResBlock {
    norm_1: GroupNorm,
    conv_1: Conv2d,
    embedding: Linear,
    norm_2: GroupNorm,
    conv_2: Conv2d,
    shortcut: Option<Conv2d>,
    scale_shift: bool,
    /// What happens to the resolution before the first convolution, and around it.
    resample: Option<Resample>,
    dropout: f64,
    /// Which of the network's residual blocks it is.
    number: usize,
}

impl ResBlock {
    fn new(scope: &mut Scope, c: &UNetSpec, input: i64, output: i64, projections: &mut Vec<Linear>) -> Self {
        let projected = if c.time_scale_shift { 2 * output } else { output };
        let block = Self {
            norm_1: GroupNorm::new(&mut scope.sub("norm1"), input, c.norm_groups, c.norm_eps),
            conv_1: Conv2d::new(&mut scope.sub("conv1"), input, output, 3, Start::Default),
            embedding: Linear::new(&mut scope.sub("time_emb_proj"), c.embedding(), projected, Start::Default),
            norm_2: GroupNorm::new(&mut scope.sub("norm2"), output, c.norm_groups, c.norm_eps),
            conv_2: Conv2d::new(&mut scope.sub("conv2"), output, output, 3, Start::Zero),
            shortcut: (input != output)
                .then(|| Conv2d::new(&mut scope.sub("conv_shortcut"), input, output, 1, Start::Default)),
            scale_shift: c.time_scale_shift,
            resample: None,
            dropout: c.dropout,
            number: projections.len(),
        };
        projections.push(block.embedding);
        block
    }

    /// A block from one level to the next, of as many channels.
    fn resampling(
        scope: &mut Scope,
        c: &UNetSpec,
        channels: i64,
        resample: Resample,
        projections: &mut Vec<Linear>,
    ) -> Self {
        Self { resample: Some(resample), ..Self::new(scope, c, channels, channels, projections) }
    }

    /// The output for `x`: one tensor, or that of the level below and a skip, concatenated along their channels.
    fn forward<const N: usize>(&self, pass: &Pass, x: [&Tensor; N]) -> Result<Tensor, TchError> {
        let w = pass.w;
        let Normed { mut y, mut inputs } = self.norm_1.normed(w, x, Activation::Silu)?;
        if let Some(resample) = self.resample {
            y = resample.apply(&y)?;
            for x in &mut inputs {
                *x = resample.apply(x)?;
            }
        }
        let h = self.conv_1.forward(w, &y)?;
        let known = pass.times.as_ref().map(|times| times.of(FIRST_PROJECTION + self.number)).transpose()?.flatten();
        let embedding = known.map_or_else(|| self.embedding.forward(w, &pass.embedding), Ok)?;
        let mut h = if self.scale_shift {
            let parts = embedding.f_chunk(2, 1)?;
            self.norm_2.silu_scaled_and_shifted(w, &h, &parts[0], &parts[1])?
        } else {
            self.norm_2.silu_of_sum(w, &h, &embedding)?
        };
        if let (Some(dropout), true) = (&pass.dropout, self.dropout > 0.0) {
            h = dropout.apply(&h, self.dropout, self.number as i64)?;
        }
        self.conv_2.forward_plus(w, &h, || match (&self.shortcut, &inputs[..]) {
            (Some(conv), _) => conv.forward_all(w, inputs.each_ref()),
            (None, [x]) => Ok(x.shallow_clone()),
            (None, _) => unreachable!("a block that joins two inputs has more input channels than output channels"),
        })
    }
}

/// One level on the way down.
#[derive(Debug)]
pub(super) struct Down {
    layers: Vec<(ResBlock, Option<Attention>)>,
    downsample: Option<Downsample>,
}

/// From a level to the next lower resolution.
#[derive(Debug)]
enum Downsample {
    /// `pads_far_side`: by one row and column at the bottom and right only.
    Convolution {
        conv: Conv2d,
        pads_far_side: bool,
    },
    Residual(ResBlock),
}

impl Down {
    pub(super) fn new(
        scope: &mut Scope,
        c: &UNetSpec,
        input: i64,
        output: i64,
        attends: bool,
        shrinks: bool,
        projections: &mut Vec<Linear>,
    ) -> Self {
        let layers = (0..c.layers_per_block)
            .map(|j| {
                let from = if j == 0 { input } else { output };
                layer(scope, c, j, from, output, attends, projections)
            })
            .collect();
        let downsample = shrinks.then(|| {
            let scope = &mut scope.sub("downsamplers.0");
            if c.residual_resampling {
                return Downsample::Residual(ResBlock::resampling(scope, c, output, Resample::Halve, projections));
            }
            let conv = Conv2d::new(&mut scope.sub("conv"), output, output, 3, Start::Default)
                .with_stride(2, c.downsample_padding);
            Downsample::Convolution { conv, pads_far_side: c.downsample_padding == 0 }
        });
        Self { layers, downsample }
    }

    pub(super) fn forward(
        &self,
        pass: &Pass,
        level: usize,
        mut x: Tensor,
        skips: &mut Vec<Tensor>,
    ) -> Result<Tensor, TchError> {
        for (residual, attention) in &self.layers {
            x = forward_layer(pass, level, residual, attention.as_ref(), [&x])?;
            skips.push(x.shallow_clone());
        }
        if let Some(downsample) = &self.downsample {
            x = match downsample {
                Downsample::Convolution { conv, pads_far_side: true } => {
                    conv.forward(pass.w, &x.f_constant_pad_nd([0, 1, 0, 1])?)?
                }
                Downsample::Convolution { conv, .. } => conv.forward(pass.w, &x)?,
                Downsample::Residual(block) => forward_layer(pass, level, block, None, [&x])?,
            };
            skips.push(x.shallow_clone());
        }
        Ok(x)
    }
}

/// The bottom: residual, attention if it has any, residual.
#[derive(Debug)]
pub(super) struct Mid {
    before: ResBlock,
    attention: Option<Attention>,
    after: ResBlock,
}

impl Mid {
    pub(super) fn new(scope: &mut Scope, c: &UNetSpec, channels: i64, projections: &mut Vec<Linear>) -> Self {
        let before = ResBlock::new(&mut scope.sub("resnets.0"), c, channels, channels, projections);
        let mut attention = |groups| Attention::new(&mut scope.sub("attentions.0"), c, channels, groups);
        let attention = match c.mid_attention {
            MidAttention::Absent => None,
            MidAttention::Unnormed => Some(attention(None)),
            MidAttention::Normed { groups } => Some(attention(Some(groups))),
        };
        Self {
            before,
            attention,
            after: ResBlock::new(&mut scope.sub("resnets.1"), c, channels, channels, projections),
        }
    }

    pub(super) fn forward(&self, pass: &Pass, level: usize, x: &Tensor) -> Result<Tensor, TchError> {
        let x = forward_layer(pass, level, &self.before, self.attention.as_ref(), [x])?;
        forward_layer(pass, level, &self.after, None, [&x])
    }
}

/// Channels of the inputs and outputs of one level on the way up.
#[derive(Clone, Copy, Debug)]
pub(super) struct UpChannels {
    /// Of the output of the level below.
    pub(super) from_below: i64,
    /// Of this level, and of all its skips but the last.
    pub(super) output: i64,
    /// Of the last skip, which comes from the next higher level.
    pub(super) skip_of_last: i64,
}

/// One level on the way up.
#[derive(Debug)]
pub(super) struct Up {
    layers: Vec<(ResBlock, Option<Attention>)>,
    upsample: Option<Upsample>,
}

/// From a level to the next higher resolution.
#[derive(Debug)]
enum Upsample {
    Convolution(Conv2d),
    Residual(ResBlock),
}

impl Up {
    pub(super) fn new(
        scope: &mut Scope,
        c: &UNetSpec,
        sides: UpChannels,
        attends: bool,
        grows: bool,
        projections: &mut Vec<Linear>,
    ) -> Self {
        let layers = (0..=c.layers_per_block)
            .map(|j| {
                let from = if j == 0 { sides.from_below } else { sides.output };
                let skip = if j == c.layers_per_block { sides.skip_of_last } else { sides.output };
                layer(scope, c, j, from + skip, sides.output, attends, projections)
            })
            .collect();
        let upsample = grows.then(|| {
            let (scope, channels) = (&mut scope.sub("upsamplers.0"), sides.output);
            if c.residual_resampling {
                return Upsample::Residual(ResBlock::resampling(scope, c, channels, Resample::Double, projections));
            }
            Upsample::Convolution(Conv2d::new(&mut scope.sub("conv"), channels, channels, 3, Start::Default))
        });
        Self { layers, upsample }
    }

    pub(super) fn forward(
        &self,
        pass: &Pass,
        level: usize,
        mut x: Tensor,
        skips: &mut Vec<Tensor>,
    ) -> Result<Tensor, TchError> {
        for (residual, attention) in &self.layers {
            let skip = skips.pop().expect("the way up takes as many skips as the way down gives");
            x = forward_layer(pass, level, residual, attention.as_ref(), [&x, &skip])?;
        }
        match &self.upsample {
            Some(Upsample::Convolution(conv)) => conv.forward(pass.w, &Resample::Double.apply(&x)?),
            Some(Upsample::Residual(block)) => forward_layer(pass, level, block, None, [&x]),
            None => Ok(x),
        }
    }
}

fn layer(
    scope: &mut Scope,
    c: &UNetSpec,
    index: i64,
    input: i64,
    output: i64,
    attends: bool,
    projections: &mut Vec<Linear>,
) -> (ResBlock, Option<Attention>) {
    let residual = ResBlock::new(&mut scope.sub(format_args!("resnets.{index}")), c, input, output, projections);
    let attention = attends
        .then(|| Attention::new(&mut scope.sub(format_args!("attentions.{index}")), c, output, Some(c.norm_groups)));
    (residual, attention)
}

/// One layer of a level, on the channels of all of `x` together.
fn forward_layer<const N: usize>(
    pass: &Pass,
    level: usize,
    residual: &ResBlock,
    attention: Option<&Attention>,
    x: [&Tensor; N],
) -> Result<Tensor, TchError> {
    let (residual, attention) = (*residual, attention.copied());
    let run = move |pass: &Pass, x: [&Tensor; N]| {
        let x = residual.forward(pass, x)?;
        match attention {
            Some(attention) => attention.forward(pass.w, &x),
            None => Ok(x),
        }
    };
    let backward_follows = || pass.embedding.requires_grad() || x.iter().any(|x| x.requires_grad());
    if !pass.checkpointed.get(level).is_some_and(|on| *on) || !backward_follows() {
        // The layer's contributions to each input's gradient are summed on their own first, as under a checkpoint.
        return run(pass, x.map(Tensor::alias).each_ref());
    }
    let (w, dropout) = (pass.w.shallow_clone(), pass.dropout.as_ref().map(Dropout::shallow_clone));
    let inputs: Vec<&Tensor> = std::iter::once(&pass.embedding).chain(x).collect();
    let again = move |inputs: &[Tensor]| {
        let embedding = inputs[0].shallow_clone();
        let dropout = dropout.as_ref().map(Dropout::shallow_clone);
        let pass = Pass { w: &w, embedding, times: None, dropout, checkpointed: &[] };
        run(&pass, std::array::from_fn(|i| &inputs[1 + i]))
    };
    tch_ext::checkpoint(&inputs, again)
}
