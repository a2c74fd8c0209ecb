//! Training objectives: per-sample losses, not reduced.

use std::f64::consts::{LN_2, PI};

use tch::Tensor;

use crate::DiffusionError;
use crate::process::{Clip, ModelPosterior, Prediction, VarianceKind, mean_flat};
use crate::tables::{Diffusion, Row};

/// Half of the width of one of 256 grey levels in `[-1, 1]`.
const HALF_BIN: f64 = 1.0 / 255.0;
/// The least probability of a grey level whose logarithm is taken.
const TINY: f64 = 1e-12;

/// What is minimised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// Mean squared error of the prediction (L_simple; Ho et al. 2020, eq. 14). Trains no variance.
    Simple,
    /// T times the bound's term at t, in bits per dimension (L_vlb): its mean over uniform t estimates the whole bound
    /// without the prior term. Known as `rescaled_kl`.
    Vlb,
    /// Mean squared error + lambda · T · vb, the mean held fixed inside vb (L_hybrid; Nichol & Dhariwal 2021, eq. 16).
    ///
    /// lambda multiplies the bound's sum over t, so its share does not change with T: lambda = 0.001 adds vb T/1000,
    /// which is `rescaled_mse`, and lambda = 1/T adds vb itself.
    Hybrid {
        /// The weight of the bound, in squared error per bit per dimension.
        lambda: f64,
    },
}

/// A weight for each timestep on the squared error. The bound carries its own weights and takes none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Weighting {
    /// 1 at every t.
    None,
    /// min(SNR, gamma) in terms of the error of x_0, whatever is predicted, with SNR = abar/(1 - abar) (Hang et al.
    /// 2023); gamma is commonly 5.
    MinSnr {
        /// Where the weight stops growing.
        gamma: f64,
    },
    /// 1/(k + SNR)^gamma in terms of the error of eps, whatever is predicted: less on the faint noise of small t, where
    /// there is little to learn but detail (Choi et al. 2022, eq. 8). k and gamma are commonly 1.
    P2 {
        /// How fast the weight falls; 0 is the simple loss of eps.
        gamma: f64,
        /// Keeps the weight of pure noise finite.
        k: f64,
    },
}

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

impl Loss {
    pub(crate) fn validate(self, variance: VarianceKind, weighting: Weighting) -> Result<(), DiffusionError> {
        let learned = variance == VarianceKind::LearnedRange;
        match self {
            Self::Simple if learned => Err(DiffusionError::Settings {
                problem: "the simple loss leaves a learned variance untrained",
                remedy: "Choose the hybrid or vlb loss, or a fixed variance",
            }),
            Self::Hybrid { .. } if !learned => Err(DiffusionError::Settings {
                problem: "the hybrid loss trains a variance and this one is fixed",
                remedy: "Choose learned_range, or the simple loss",
            }),
            Self::Hybrid { lambda } if !(lambda > 0.0 && lambda.is_finite()) => {
                Err(DiffusionError::OutOfRange { name: "the hybrid loss's lambda", value: lambda, range: "(0, inf)" })
            }
            Self::Vlb if weighting != Weighting::None => Err(DiffusionError::Settings {
                problem: "the vlb loss is a bound and takes no weights over timesteps",
                remedy: "Drop the weighting, or choose the simple or hybrid loss",
            }),
            _ => weighting.validate(),
        }
    }
}

impl Weighting {
    fn validate(self) -> Result<(), DiffusionError> {
        match self {
            Self::MinSnr { gamma } if !(gamma > 0.0 && gamma.is_finite()) => {
                Err(DiffusionError::OutOfRange { name: "min-SNR's gamma", value: gamma, range: "(0, inf)" })
            }
            Self::P2 { gamma, .. } if !(gamma >= 0.0 && gamma.is_finite()) => {
                Err(DiffusionError::OutOfRange { name: "P2's gamma", value: gamma, range: "[0, inf)" })
            }
            Self::P2 { k, .. } if !(k > 0.0 && k.is_finite()) => {
                Err(DiffusionError::OutOfRange { name: "P2's k", value: k, range: "(0, inf)" })
            }
            _ => Ok(()),
        }
    }

    /// The weight where alphas_cumprod is `abar`, on the squared error of the given prediction.
    pub(crate) fn at(self, abar: f64, prediction: Prediction) -> f64 {
        let snr = abar / (1.0 - abar);
        let of_x_start = match self {
            Self::None => return 1.0,
            Self::MinSnr { gamma } => snr.min(gamma),
            Self::P2 { gamma, k } => snr / (k + snr).powf(gamma),
        };
        // |x_0 error|² = |eps error|² / SNR = |v error|² / (SNR + 1).
        of_x_start
            / match prediction {
                Prediction::XStart => 1.0,
                Prediction::Eps => snr,
                Prediction::V => snr + 1.0,
            }
    }
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
        let settings = self.settings();
        let (predicted, variance) = self.split(model_output, x_t)?;
        let bound = |predicted: &Tensor| -> Result<Tensor, DiffusionError> {
            let posterior = self.model_posterior(predicted, variance.as_ref(), x_t, t, Clip::None)?;
            Ok(self.bound_term(posterior, x_start, x_t, t).vb)
        };
        let mse = mean_flat(&(self.target(settings.prediction, x_start, noise, t) - &predicted).square());
        let weighted = || match settings.weighting {
            Weighting::None => mse.shallow_clone(),
            _ => &mse * self.at(Row::LossWeight, t, &mse),
        };
        let steps = self.timesteps() as f64;
        let (loss, vb) = match settings.loss {
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
