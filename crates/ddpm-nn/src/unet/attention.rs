//! Self-attention of the U-Net.

use ddpm_spec::UNetSpec;
use tch::{Device, Kind, TchError, Tensor};
use tch_ext::{Activation, Normed};

use crate::arena::Weights;
use crate::layers::{GroupNorm, Linear, Scope, Start, kind_of_products};

/// Self-attention over all positions, with a residual around.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attention {
    norm: Option<GroupNorm>,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    head_dim: i64,
}

impl Attention {
    pub(super) fn new(scope: &mut Scope, c: &UNetSpec, channels: i64, norm_groups: Option<i64>) -> Self {
        Self {
            norm: norm_groups.map(|groups| GroupNorm::new(&mut scope.sub("group_norm"), channels, groups, c.norm_eps)),
            to_q: Linear::new(&mut scope.sub("to_q"), channels, channels, Start::Default),
            to_k: Linear::new(&mut scope.sub("to_k"), channels, channels, Start::Default),
            to_v: Linear::new(&mut scope.sub("to_v"), channels, channels, Start::Default),
            to_out: Linear::new(&mut scope.sub("to_out.0"), channels, channels, Start::Zero),
            head_dim: c.heads.width(channels),
        }
    }

    pub(super) fn forward(&self, w: &Weights, x: &Tensor) -> Result<Tensor, TchError> {
        let (batch, channels, height, width) = x.size4()?;
        let around = || Ok(Normed { y: x.shallow_clone(), inputs: [x.shallow_clone()] });
        let Normed { y, inputs: [x] } =
            self.norm.as_ref().map_or_else(around, |norm| norm.normed(w, [x], Activation::Identity))?;
        let tokens = y.f_flatten(2, 3)?.f_transpose(1, 2)?;
        let heads = |linear: &Linear| {
            linear
                .forward(w, &tokens)?
                .f_view([batch, height * width, channels / self.head_dim, self.head_dim])?
                .f_transpose(1, 2)
        };
        let (q, k, v) = (heads(&self.to_q)?, heads(&self.to_k)?, heads(&self.to_v)?);
        let mixed = attend(&q, &k, &v)?.f_transpose(1, 2)?.f_reshape([batch, height * width, channels])?;
        let out = self.to_out.forward(w, &mixed)?;
        out.f_transpose(1, 2)?.f_reshape([batch, channels, height, width])?.f_add(&x)
    }
}

/// Softmax of `q k^T / sqrt(D)`, times v, for queries, keys and values `[B, heads, N, D]`.
fn attend(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor, TchError> {
    let (_, _, tokens, width) = q.size4()?;
    let kind = kind_of_products(q);
    if kind != q.kind() {
        let [q32, k, v] = [q.f_to_kind(kind)?, k.f_to_kind(kind)?, v.f_to_kind(kind)?];
        return attend(&q32, &k, &v)?.f_to_kind(q.kind());
    }
    // In bf16 the CPU's fused attention makes a matrix product for every few rows, and the calls take most of its time.
    // While the scores take no more memory than what is kept anyway, three products do the same in half the time; the
    // scale is split between both factors, as in Nichol & Dhariwal's code, so that rounding comes before the sum grows.
    if q.kind() == Kind::BFloat16 && q.device() == Device::Cpu && tokens <= 4 * width {
        let scale = (width as f64).powf(-0.25);
        let scores = q.f_mul_scalar(scale)?.f_matmul(&k.f_mul_scalar(scale)?.f_transpose(-1, -2)?)?;
        return scores.f_softmax(-1, None)?.f_matmul(v);
    }
    Tensor::f_scaled_dot_product_attention(q, k, v, None::<&Tensor>, 0.0, false, None, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values and gradients of queries, keys and values are those of softmax attention in f64, to what bf16 can hold, where
    /// three products compute it and where libtorch's fused attention does.
    #[test]
    fn attention_in_bf16_is_softmax_attention() {
        for (tokens, width) in [(49, 32), (64, 16), (65, 16), (200, 8)] {
            tch::manual_seed(tokens * width);
            let normal = || Tensor::randn([2, 3, tokens, width], (Kind::BFloat16, Device::Cpu)).to_kind(Kind::Double);
            let (inputs, upstream) = ([(); 3].map(|()| normal()), normal());
            let outcome = |kind: Kind, attention: &dyn Fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor, TchError>| {
                let leaves = inputs.each_ref().map(|input| input.to_kind(kind).copy().set_requires_grad(true));
                let [q, k, v] = &leaves;
                let y = attention(q, k, v).unwrap();
                (&y * upstream.to_kind(kind)).sum(Kind::Double).backward();
                [y.detach(), q.grad(), k.grad(), v.grad()].map(|tensor| tensor.to_kind(Kind::Double))
            };
            let exact = outcome(Kind::Double, &|q, k, v| {
                let scores = q.matmul(&k.transpose(-1, -2)) / (width as f64).sqrt();
                scores.softmax(-1, None).f_matmul(v)
            });
            for ((name, ours), exact) in ["y", "dq", "dk", "dv"].iter().zip(outcome(Kind::BFloat16, &attend)).zip(exact)
            {
                let norm = |tensor: &Tensor| tensor.norm().double_value(&[]);
                let error = norm(&(ours - &exact)) / norm(&exact);
                assert!(error < 0.02, "{name} of {tokens} tokens, {width} wide, is off by {error}");
            }
        }
    }
}
