//! The small U-Net of MNIST tutorials: four levels of plain convolutions, time entering on the way up.

use ddpm_spec::{ImageShape, Naming, SmallUNetSpec};
use tch::{TchError, Tensor};
use tch_ext::Activation;

use crate::NnError;
use crate::arena::{Layout, Weights};
use crate::inputs::Inputs;
use crate::layers::{Conv2d, GroupNorm, Linear, Scope, Start};
use crate::module::Module;
use crate::time::sinusoidal_embedding;

/// Half the channels of a level each: the widths are small and even.
const GROUPS: i64 = 2;
const EPS: f64 = 1e-5;

/// Three 3×3 convolutions with group norm and ReLU; the first one's output is added to the last one's.
#[derive(Debug)]
struct Triple([(Conv2d, GroupNorm); 3]);

impl Triple {
    fn new(scope: &mut Scope, input: i64, output: i64) -> Self {
        Self([0, 1, 2].map(|j| {
            let from = if j == 0 { input } else { output };
            let conv = Conv2d::new(&mut scope.sub(format_args!("conv{}", j + 1)), from, output, 3, Start::Default);
            (conv, GroupNorm::new(&mut scope.sub(format_args!("norm{}", j + 1)), output, GROUPS, EPS))
        }))
    }

    fn forward(&self, w: &Weights, x: &Tensor) -> Result<Tensor, TchError> {
        let [first, second, third] = &self.0;
        let apply = |(conv, norm): &(Conv2d, GroupNorm), x: &Tensor| {
            norm.forward(w, &conv.forward(w, x)?, Activation::Identity)?.f_relu()
        };
        let x = apply(first, x)?;
        apply(third, &apply(second, &x)?)?.f_add(&x)
    }
}

#[derive(Debug)]
struct UpLevel {
    time: Linear,
    triple: Triple,
}

/// The small U-Net without its weights.
#[derive(Debug)]
pub struct SmallUNet {
    config: SmallUNetSpec,
    down: Vec<Triple>,
    bottom: Triple,
    up: Vec<UpLevel>,
    out: Conv2d,
}

impl SmallUNet {
    /// Declares the network's parameters in `layout`.
    ///
    /// # Errors
    /// Odd widths, or images that cannot be halved once per level.
    pub fn new(config: SmallUNetSpec, layout: &mut Layout) -> Result<Self, NnError> {
        config.validate(Naming::PLAIN)?;
        let mut root = Scope::root(layout);
        let mut input = config.image.channels as i64;
        let mut down = Vec::new();
        for (level, &width) in config.channels.iter().enumerate() {
            down.push(Triple::new(&mut root.sub(format_args!("down_blocks.{level}")), input, width));
            input = width;
        }
        let bottom = Triple::new(&mut root.sub("mid_block"), input, input);
        let mut up = Vec::new();
        for (step, &width) in config.channels.iter().rev().enumerate() {
            let scope = &mut root.sub(format_args!("up_blocks.{step}"));
            let time = Linear::new(&mut scope.sub("time_emb_proj"), config.time_width, input + width, Start::Default);
            up.push(UpLevel { time, triple: Triple::new(scope, input + width, width) });
            input = width;
        }
        let out = Conv2d::new(&mut root.sub("conv_out"), input, config.out_channels, 1, Start::Default);
        Ok(Self { config, down, bottom, up, out })
    }

    /// What it was built from.
    pub fn config(&self) -> &SmallUNetSpec {
        &self.config
    }
}

impl Module for SmallUNet {
    fn image(&self) -> ImageShape {
        self.config.image
    }

    fn forward(&self, w: &Weights, inputs: &Inputs, _: &[bool]) -> Result<Tensor, TchError> {
        let time = sinusoidal_embedding(inputs.t, self.config.time_width, false, 0.0)?;
        let mut x = inputs.x.shallow_clone();
        let mut skips = Vec::new();
        for triple in &self.down {
            let level = triple.forward(w, &x)?;
            x = level.f_max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false)?;
            skips.push(level);
        }
        x = self.bottom.forward(w, &x)?;
        for level in &self.up {
            let skip = skips.pop().expect("one skip per level");
            let (height, width) = (skip.size()[2], skip.size()[3]);
            let joined = Tensor::f_cat(&[x.f_upsample_nearest2d([height, width], None, None)?, skip], 1)?;
            let shift = level.time.forward(w, &time)?.f_to_kind(joined.kind())?.f_unsqueeze(-1)?.f_unsqueeze(-1)?;
            x = level.triple.forward(w, &joined.f_add(&shift)?)?;
        }
        self.out.forward(w, &x)
    }
}
