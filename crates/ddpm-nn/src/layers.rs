//! Layers as handles into the arena: convolution, linear map, group norm, embedding table.

use tch::{Device, Kind, TchError, Tensor};
use tch_ext::{Activation, Normed, PerChannel};

use crate::arena::{Init, Layout, Param, Weights};
use crate::prepared::Form;

/// Where a layer's parameters are declared: a layout and the prefix of their names.
#[derive(Debug)]
pub struct Scope<'a> {
    layout: &'a mut Layout,
    prefix: String,
}

impl<'a> Scope<'a> {
    /// Names without a prefix.
    pub fn root(layout: &'a mut Layout) -> Self {
        Self { layout, prefix: String::new() }
    }

    /// The scope `prefix.name`.
    pub fn sub(&mut self, name: impl std::fmt::Display) -> Scope<'_> {
        let prefix = format!("{}{name}.", self.prefix);
        Scope { layout: self.layout, prefix }
    }

    /// Declares the parameter `prefix.name`.
    pub fn param(&mut self, name: &str, shape: &[i64], init: Init) -> Param {
        self.layout.declare(format!("{}{name}", self.prefix), shape, init)
    }
}

/// How a layer's parameters start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    /// As in PyTorch.
    Default,
    /// At zero, for the last layer of a residual branch (Ho et al. 2020, appendix B).
    Zero,
}

impl Start {
    fn init(self, fan_in: i64) -> Init {
        match self {
            Start::Default => Init::Uniform { fan_in },
            Start::Zero => Init::Zeros,
        }
    }
}

/// A square convolution with bias.
#[derive(Clone, Copy, Debug)]
pub struct Conv2d {
    weight: Param,
    bias: Param,
    stride: i64,
    padding: i64,
}

impl Conv2d {
    /// A `kernel`×`kernel` convolution of `input` channels to `output`, of stride 1 and padded to keep the image's size.
    pub fn new(scope: &mut Scope, input: i64, output: i64, kernel: i64, start: Start) -> Self {
        let init = start.init(input * kernel * kernel);
        Self {
            weight: scope.param("weight", &[output, input, kernel, kernel], init),
            bias: scope.param("bias", &[output], init),
            stride: 1,
            padding: kernel / 2,
        }
    }

    /// The same with another stride and padding.
    pub fn with_stride(self, stride: i64, padding: i64) -> Self {
        Self { stride, padding, ..self }
    }

    /// The convolution of `x` `[B, input, H, W]`, in the kind of `x`.
    ///
    /// # Errors
    /// libtorch fails: shapes do not fit, or memory runs out.
    pub fn forward(&self, w: &Weights, x: &Tensor) -> Result<Tensor, TchError> {
        if let Some(planes) = self.planes(w, x)? {
            return tch_ext::winograd_with_planes(x, &planes, &w[self.bias], None);
        }
        if self.kind_of_planes(w, x)?.is_some() {
            return tch_ext::winograd(x, &w[self.weight], &w[self.bias]);
        }
        let kind = kind_of_products(x);
        let weight = self.parts(w, kind, || Ok(vec![w.in_kind(self.weight, kind)?]))?;
        self.convolve(&x.f_to_kind(kind)?, &weight[0], Some(&w.in_kind(self.bias, kind)?))?.f_to_kind(x.kind())
    }

    /// The convolution of `x` plus `plus`, of its shape and kind: in one pass over memory where no gradient is needed.
    pub(crate) fn forward_plus(
        &self,
        w: &Weights,
        x: &Tensor,
        plus: impl FnOnce() -> Result<Tensor, TchError>,
    ) -> Result<Tensor, TchError> {
        match self.planes(w, x)? {
            Some(planes) => tch_ext::winograd_with_planes(x, &planes, &w[self.bias], Some(&plus()?)),
            None => self.forward(w, x)?.f_add_(&plus()?),
        }
    }

    /// The convolution of the concatenated `inputs`, computed as a sum of convolutions instead of copying them together.
    pub(crate) fn forward_all<const N: usize>(&self, w: &Weights, inputs: [&Tensor; N]) -> Result<Tensor, TchError> {
        let kind = kind_of_products(inputs[0]);
        let bias = w.in_kind(self.bias, kind)?;
        let channels = inputs.map(|x| x.size()[1]);
        let weights = self.parts(w, kind, || w.in_kind(self.weight, kind)?.f_split_with_sizes(channels, 1))?;
        let mut sum = None::<Tensor>;
        for (x, weight) in inputs.iter().zip(&weights) {
            let bias = sum.is_none().then_some(&bias);
            let part = self.convolve(&x.f_to_kind(kind)?, weight, bias)?.f_to_kind(x.kind())?;
            sum = Some(match sum {
                Some(mut sum) => sum.f_add_(&part)?,
                None => part,
            });
        }
        Ok(sum.expect("there is an input"))
    }

    /// The kind of the transformed weights by which Winograd's algorithm convolves `x` fastest: for 3x3 convolutions that
    /// keep the size.
    fn kind_of_planes(&self, w: &Weights, x: &Tensor) -> Result<Option<Kind>, TchError> {
        let (output, input, kernel, _) = w[self.weight].size4()?;
        let supported = (kernel, self.stride, self.padding) == (3, 1, 1);
        Ok(if supported { tch_ext::winograd_planes_for(x, input, output) } else { None })
    }

    /// The transformed weights for `x`, where they are the fastest choice and no gradient is needed.
    fn planes(&self, w: &Weights, x: &Tensor) -> Result<Option<Tensor>, TchError> {
        if !w.is_prepared() || x.requires_grad() {
            return Ok(None);
        }
        let Some(kind) = self.kind_of_planes(w, x)? else { return Ok(None) };
        let planes =
            w.prepared(self.weight, Form::Planes(kind), || Ok(vec![tch_ext::winograd_planes(&w[self.weight], kind)?]))?;
        Ok(planes.and_then(|mut planes| planes.pop()))
    }

    /// The parts into which `split` divides the weights in `kind`, with the channels adjacent if they are prepared:
    /// libtorch would copy them so in every pass.
    fn parts(
        &self,
        w: &Weights,
        kind: Kind,
        split: impl Fn() -> Result<Vec<Tensor>, TchError>,
    ) -> Result<Vec<Tensor>, TchError> {
        let prepared =
            w.prepared(self.weight, Form::Direct(kind), || split()?.iter().map(tch_ext::channels_last).collect());
        match prepared? {
            Some(parts) => Ok(parts),
            None => split(),
        }
    }

    fn convolve(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, TchError> {
        x.f_conv2d(weight, bias, [self.stride; 2], [self.padding; 2], [1; 2], 1)
    }
}

/// The kind in which products with `x` are computed: its own, except that bf16 is computed in f32 on a CPU without
/// instructions for it, where libtorch would take ten times as long.
pub(crate) fn kind_of_products(x: &Tensor) -> Kind {
    products_in(x.kind(), x.device())
}

/// The same for tensors of this kind on this device.
pub(crate) fn products_in(kind: Kind, device: Device) -> Kind {
    match kind {
        Kind::BFloat16 if device == Device::Cpu && !tch_ext::multiplies_bf16() => Kind::Float,
        kind => kind,
    }
}

/// A linear map with bias.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    weight: Param,
    bias: Param,
}

impl Linear {
    /// A map of `input` numbers to `output`.
    pub fn new(scope: &mut Scope, input: i64, output: i64, start: Start) -> Self {
        let init = start.init(input);
        Self { weight: scope.param("weight", &[output, input], init), bias: scope.param("bias", &[output], init) }
    }

    /// The map of `x` `[..., input]`, in the kind of `x`.
    ///
    /// # Errors
    /// libtorch fails: shapes do not fit, or memory runs out.
    pub fn forward(&self, w: &Weights, x: &Tensor) -> Result<Tensor, TchError> {
        let kind = kind_of_products(x);
        let (weight, bias) = (w.in_kind(self.weight, kind)?, w.in_kind(self.bias, kind)?);
        x.f_to_kind(kind)?.f_linear(&weight, Some(bias))?.f_to_kind(x.kind())
    }
}

/// Group normalisation (Wu & He 2018), with a gain and a bias for each channel.
#[derive(Clone, Copy, Debug)]
pub struct GroupNorm {
    weight: Param,
    bias: Param,
    groups: i64,
    eps: f64,
}

impl GroupNorm {
    /// Normalises `groups` equal parts of the `channels`; `eps` is added to their variance.
    pub fn new(scope: &mut Scope, channels: i64, groups: i64, eps: f64) -> Self {
        Self {
            weight: scope.param("weight", &[channels], Init::Ones),
            bias: scope.param("bias", &[channels], Init::Zeros),
            groups,
            eps,
        }
    }

    /// The norm of `x` `[B, channels, H, W]`, and the activation after it.
    ///
    /// # Errors
    /// libtorch fails: shapes do not fit, or memory runs out.
    pub fn forward(&self, w: &Weights, x: &Tensor, activation: Activation) -> Result<Tensor, TchError> {
        Ok(self.normed(w, [x], activation)?.y)
    }

    /// The same for the concatenation of all of `x`, together with the inputs, for the branch around the norm.
    pub(crate) fn normed<const N: usize>(
        &self,
        w: &Weights,
        x: [&Tensor; N],
        activation: Activation,
    ) -> Result<Normed<N>, TchError> {
        self.apply(x, None, &w[self.weight].f_unsqueeze(0)?, &w[self.bias].f_unsqueeze(0)?, activation)
    }

    /// SiLU of the norm of `x + offset`; offset is `[B, C]`.
    pub(crate) fn silu_of_sum(&self, w: &Weights, x: &Tensor, offset: &Tensor) -> Result<Tensor, TchError> {
        let (gain, bias) = (w[self.weight].f_unsqueeze(0)?, w[self.bias].f_unsqueeze(0)?);
        Ok(self.apply([x], Some(offset), &gain, &bias, Activation::Silu)?.y)
    }

    /// SiLU of `norm(x) (1 + scale) + shift` (Nichol & Dhariwal 2021, section 3.1); scale and shift are `[B, C]`.
    pub(crate) fn silu_scaled_and_shifted(
        &self,
        w: &Weights,
        x: &Tensor,
        scale: &Tensor,
        shift: &Tensor,
    ) -> Result<Tensor, TchError> {
        let scale = scale.f_add_scalar(1.0)?;
        let gain = w[self.weight].f_mul(&scale)?;
        let bias = w[self.bias].f_mul(&scale)?.f_add(shift)?;
        Ok(self.apply([x], None, &gain, &bias, Activation::Silu)?.y)
    }

    fn apply<const N: usize>(
        &self,
        x: [&Tensor; N],
        offset: Option<&Tensor>,
        gain: &Tensor,
        bias: &Tensor,
        activation: Activation,
    ) -> Result<Normed<N>, TchError> {
        tch_ext::group_norm(x, PerChannel { offset, gain, bias }, self.groups, self.eps, activation)
    }
}

/// A table of vectors.
#[derive(Clone, Copy, Debug)]
pub struct Embedding {
    weight: Param,
}

impl Embedding {
    /// `rows` vectors of `width` numbers.
    pub fn new(scope: &mut Scope, rows: i64, width: i64) -> Self {
        Self { weight: scope.param("weight", &[rows, width], Init::Normal) }
    }

    /// The vectors `[B, width]` of `indices`, i64 `[B]`.
    ///
    /// # Errors
    /// libtorch fails: an index is out of range, or memory runs out.
    pub fn forward(&self, w: &Weights, indices: &Tensor) -> Result<Tensor, TchError> {
        Tensor::f_embedding(&w[self.weight], indices, -1, false, false)
    }
}
