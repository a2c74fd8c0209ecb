//! Training objectives: per-sample losses, not reduced.

use std::f64::consts::{LN_2, PI};

use ddpm_spec::{Loss, Weighting};
use tch::Tensor;

use crate::DiffusionError;
use crate::process::{Clip, ModelPosterior, mean_flat};
use crate::tables::{Diffusion, Row};

/// Half of the width of one of 256 grey levels in `[-1, 1]`.
const HALF_BIN: f64 = 1.0 / 255.0;
/// The least probability of a grey level whose logarithm is taken.
const TINY: f64 = 1e-12;

/// One training batch's terms, each `[B]`.
#[derive(Debug)]
pub struct Terms {
    /// What is minimised; its mean over the batch goes backward.
    pub loss: Tensor,
    /// Mean squared error of the prediction, without weights.
    pub mse: Tensor,
    /// The bound's term at t in bits per dimension; without a gradient where the objective does not hold it.
    pub vb: Tensor,
}

/// The bound's term at one timestep, with the prediction of x_0 that it comes from.
pub(crate) struct BoundTerm {
    pub vb: Tensor,
    pub pred_x_start: Tensor,
}

impl Diffusion {
    /// The objective for each sample, given the model's output at `x_t = q_sample(x_start, t, noise)`.
    ///
    /// `model_output` is `[B, C or 2C, H, W]`, `t` is `[B]`; the arithmetic runs in the kind of `x_t`.
    ///
    /// # Errors
    /// The output's shape does not fit x_t and the kind of variance.
    pub fn training_terms(
        &self,
        model_output: &Tensor,
        x_start: &Tensor,
        x_t: &Tensor,
        t: &Tensor,
        noise: &Tensor,
    ) -> Result<Terms, DiffusionError> {
        let spec = self.spec();
        let (predicted, variance) = self.split(model_output, x_t)?;
        let bound = |predicted: &Tensor| -> Result<Tensor, DiffusionError> {
            let posterior = self.model_posterior(predicted, variance.as_ref(), x_t, t, Clip::None)?;
            Ok(self.bound_term(posterior, x_start, x_t, t).vb)
        };
        let mse = mean_flat(&(self.target(spec.prediction, x_start, noise, t) - &predicted).square());
        let weighted = || match spec.weighting {
            Weighting::None => mse.shallow_clone(),
            _ => &mse * self.at(Row::LossWeight, t, &mse),
        };
        let steps = self.timesteps() as f64;
        let (loss, vb) = match spec.loss {
            Loss::Simple => (weighted(), tch::no_grad(|| bound(&predicted))?),
            Loss::Vlb => {
                let vb = bound(&predicted)?;
                (&vb * steps, vb)
            }
            Loss::Hybrid { lambda } => {
                // The bound is noisier than the squared error: it may move the variance only.
                let vb = bound(&predicted.detach())?;
                (weighted() + lambda * steps * &vb, vb)
            }
        };
        Ok(Terms { loss, mse, vb })
    }

    /// L_{t-1} (or L_0 at t = 0) of Ho et al. 2020, eq. 5, in bits per dimension: `[B]`.
    pub(crate) fn bound_term(&self, model: ModelPosterior, x_start: &Tensor, x_t: &Tensor, t: &Tensor) -> BoundTerm {
        let truth = self.q_posterior_mean_variance(x_start, x_t, t);
        let kl = mean_flat(&normal_kl(&truth.mean, &truth.log_variance, &model.mean, &model.log_variance)) / LN_2;
        let decoder = -mean_flat(&decoder_log_likelihood(x_start, &model.mean, &(&model.log_variance * 0.5))) / LN_2;
        BoundTerm { vb: decoder.where_self(&t.eq(0), &kl), pred_x_start: model.pred_x_start }
    }

    /// L_T: the divergence of q(x_T | x_0) from the standard normal, in bits per dimension: `[B]`.
    pub fn prior_bpd(&self, x_start: &Tensor) -> Tensor {
        let last = self.full_t(self.timesteps() - 1, x_start.size()[0]);
        let q = self.q_mean_variance(x_start, &last);
        let zero = q.mean.zeros_like();
        mean_flat(&normal_kl(&q.mean, &q.log_variance, &zero, &zero)) / LN_2
    }
}

/// KL divergence of N(mean1, exp(log_variance1)) from N(mean2, exp(log_variance2)), element by element, in nats.
fn normal_kl(mean1: &Tensor, log_variance1: &Tensor, mean2: &Tensor, log_variance2: &Tensor) -> Tensor {
    let log_ratio = log_variance1 - log_variance2;
    0.5 * (log_ratio.exp() - 1.0 - log_ratio + (mean1 - mean2).square() * (-log_variance2).exp())
}

/// Log probability, in nats, of grey levels `x` in `[-1, 1]` under a Gaussian cut into bins of width 2/255, the outer
/// two of which are open (Ho et al. 2020, eq. 13).
fn decoder_log_likelihood(x: &Tensor, mean: &Tensor, log_scale: &Tensor) -> Tensor {
    let centred = x - mean;
    let inverse_scale = (-log_scale).exp();
    let upper = standard_normal_cdf(&(&inverse_scale * (&centred + HALF_BIN)));
    let lower = standard_normal_cdf(&(&inverse_scale * (&centred - HALF_BIN)));
    let log = |probability: Tensor| probability.clamp_min(TINY).log();
    let inner = log(&upper - &lower);
    let top = log(1.0 - lower);
    let bottom = log(upper);
    let inner = top.where_self(&x.gt(0.999), &inner);
    bottom.where_self(&x.lt(-0.999), &inner)
}

/// The normal distribution function by the tanh approximation that published bits per dimension rest on.
fn standard_normal_cdf(x: &Tensor) -> Tensor {
    let inner: Tensor = (x.pow_tensor_scalar(3) * 0.044715 + x) * (2.0 / PI).sqrt();
    (inner.tanh() + 1.0) * 0.5
}
