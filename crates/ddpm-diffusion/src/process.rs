//! The forward process, its posterior, and what a model output says about the reverse step.

use ddpm_spec::{Prediction, Variance};
use tch::{Kind, Tensor};

use crate::DiffusionError;
use crate::tables::{Diffusion, Row};

/// How the predicted x_0 is clipped before a reverse step uses it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clip {
    /// Not at all.
    None,
    /// Clamped to `[-1, 1]`.
    Unit,
    /// Clamped to the sample's own quantile of |x_0| where that exceeds 1, and divided by it (Saharia et al. 2022,
    /// section 2.3). The value is the quantile in (0, 1], commonly 0.995.
    Dynamic(f64),
}

/// A diagonal Gaussian over images; every tensor broadcasts against `[B, C, H, W]`.
#[derive(Debug)]
pub struct Gaussian {
    /// The mean.
    pub mean: Tensor,
    /// The variance.
    pub variance: Tensor,
    /// Its logarithm; finite where the variance is 0, see [`Diffusion::posterior_log_variance_clipped`].
    pub log_variance: Tensor,
}

/// The model's p(x_{t-1} | x_t), every tensor `[B, C, H, W]`.
#[derive(Debug)]
pub struct ModelPosterior {
    /// The mean.
    pub mean: Tensor,
    /// The variance.
    pub variance: Tensor,
    /// Its logarithm.
    pub log_variance: Tensor,
    /// The predicted x_0, clipped as asked.
    pub pred_x_start: Tensor,
}

impl Diffusion {
    /// x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise (Ho et al. 2020, eq. 4), for `t` `[B]`.
    pub fn q_sample(&self, x_start: &Tensor, t: &Tensor, noise: &Tensor) -> Tensor {
        self.at(Row::SqrtAlphasCumprod, t, x_start) * x_start
            + self.at(Row::SqrtOneMinusAlphasCumprod, t, x_start) * noise
    }

    /// q(x_t | x_0) (Ho et al. 2020, eq. 4). The variances are `[B, 1, 1, 1]`.
    pub fn q_mean_variance(&self, x_start: &Tensor, t: &Tensor) -> Gaussian {
        let variance: Tensor = 1.0 - self.exactly_at(Row::AlphasCumprod, t, x_start);
        Gaussian {
            mean: self.at(Row::SqrtAlphasCumprod, t, x_start) * x_start,
            log_variance: variance.log().to_kind(x_start.kind()),
            variance: variance.to_kind(x_start.kind()),
        }
    }

    /// q(x_{t-1} | x_t, x_0) (Ho et al. 2020, eq. 6 and 7). The variances are `[B, 1, 1, 1]`.
    pub fn q_posterior_mean_variance(&self, x_start: &Tensor, x_t: &Tensor, t: &Tensor) -> Gaussian {
        Gaussian {
            mean: self.at(Row::PosteriorMeanCoef1, t, x_t) * x_start + self.at(Row::PosteriorMeanCoef2, t, x_t) * x_t,
            variance: self.at(Row::PosteriorVariance, t, x_t),
            log_variance: self.at(Row::PosteriorLogVariance, t, x_t),
        }
    }

    /// x_0 from a prediction of the given kind at x_t.
    pub fn x_start_from(&self, kind: Prediction, predicted: &Tensor, x_t: &Tensor, t: &Tensor) -> Tensor {
        match kind {
            Prediction::XStart => predicted.shallow_clone(),
            Prediction::Eps => {
                self.at(Row::SqrtRecipAlphasCumprod, t, x_t) * x_t
                    - self.at(Row::SqrtRecipM1AlphasCumprod, t, x_t) * predicted
            }
            Prediction::V => {
                self.at(Row::SqrtAlphasCumprod, t, x_t) * x_t
                    - self.at(Row::SqrtOneMinusAlphasCumprod, t, x_t) * predicted
            }
        }
    }

    /// eps from a prediction of the given kind at x_t.
    pub fn eps_from(&self, kind: Prediction, predicted: &Tensor, x_t: &Tensor, t: &Tensor) -> Tensor {
        match kind {
            Prediction::Eps => predicted.shallow_clone(),
            Prediction::XStart => {
                let eps = (self.at(Row::SqrtRecipAlphasCumprod, t, x_t) * x_t - predicted)
                    / self.at(Row::SqrtRecipM1AlphasCumprod, t, x_t);
                if self.terminal_signal() > 0.0 {
                    return eps;
                }
                // Infinity over infinity above: pure noise is its own eps.
                let pure = self.exactly_at(Row::AlphasCumprod, t, x_t).eq(0.0);
                x_t.where_self(&pure, &eps)
            }
            Prediction::V => {
                self.at(Row::SqrtOneMinusAlphasCumprod, t, x_t) * x_t
                    + self.at(Row::SqrtAlphasCumprod, t, x_t) * predicted
            }
        }
    }

    /// The regression target: what a perfect network returns for x_0 and the noise in x_t.
    pub fn target(&self, kind: Prediction, x_start: &Tensor, noise: &Tensor, t: &Tensor) -> Tensor {
        match kind {
            Prediction::Eps => noise.shallow_clone(),
            Prediction::XStart => x_start.shallow_clone(),
            Prediction::V => {
                self.at(Row::SqrtAlphasCumprod, t, noise) * noise
                    - self.at(Row::SqrtOneMinusAlphasCumprod, t, noise) * x_start
            }
        }
    }

    /// p(x_{t-1} | x_t) as the model output `[B, C or 2C, H, W]` describes it.
    ///
    /// # Errors
    /// The output's shape does not fit x_t and the kind of variance.
    pub fn p_mean_variance(
        &self,
        model_output: &Tensor,
        x_t: &Tensor,
        t: &Tensor,
        clip: Clip,
    ) -> Result<ModelPosterior, DiffusionError> {
        let (predicted, variance_channels) = self.split(model_output, x_t)?;
        self.model_posterior(&predicted, variance_channels.as_ref(), x_t, t, clip)
    }

    /// The prediction and, for a learned variance, its channels, both in the kind of x_t.
    pub(crate) fn split(
        &self,
        model_output: &Tensor,
        x_t: &Tensor,
    ) -> Result<(Tensor, Option<Tensor>), DiffusionError> {
        let mut expected = x_t.size();
        let channels = expected[1];
        expected[1] = self.spec().variance.model_channels(channels);
        check_shape(model_output, expected)?;
        // A network may compute in reduced precision; sums and logarithms of small numbers are taken in the images' kind.
        let output = model_output.to_kind(x_t.kind());
        Ok(match self.spec().variance {
            Variance::FixedSmall | Variance::FixedLarge => (output, None),
            Variance::LearnedRange => (output.narrow(1, 0, channels), Some(output.narrow(1, channels, channels))),
        })
    }

    pub(crate) fn model_posterior(
        &self,
        predicted: &Tensor,
        variance_channels: Option<&Tensor>,
        x_t: &Tensor,
        t: &Tensor,
        clip: Clip,
    ) -> Result<ModelPosterior, DiffusionError> {
        let pred_x_start = clip.apply(self.x_start_from(self.spec().prediction, predicted, x_t, t))?;
        let posterior = self.q_posterior_mean_variance(&pred_x_start, x_t, t);
        let small = posterior.log_variance;
        let (variance, log_variance) = match (self.spec().variance, variance_channels) {
            (Variance::LearnedRange, Some(channels)) => {
                let fraction = (channels + 1.0) / 2.0;
                let log_variance: Tensor = &fraction * self.at(Row::LogBetas, t, x_t) + (1.0 - &fraction) * small;
                (log_variance.exp(), log_variance)
            }
            (Variance::FixedLarge, _) => {
                let first = t.eq(0).view([-1, 1, 1, 1]);
                let log_variance = small.where_self(&first, &self.at(Row::LogBetas, t, x_t));
                (log_variance.exp(), log_variance)
            }
            _ => (posterior.variance, small),
        };
        Ok(ModelPosterior {
            mean: posterior.mean,
            variance: variance.expand_as(x_t),
            log_variance: log_variance.expand_as(x_t),
            pred_x_start,
        })
    }
}

impl Clip {
    /// Refuses a quantile outside (0, 1].
    pub(crate) fn apply(self, x_start: Tensor) -> Result<Tensor, DiffusionError> {
        match self {
            Self::None => Ok(x_start),
            Self::Unit => Ok(x_start.clamp(-1.0, 1.0)),
            Self::Dynamic(quantile) if quantile > 0.0 && quantile <= 1.0 => {
                let flat = x_start.flatten(1, -1);
                let bound = row_quantile(&flat.abs(), quantile).clamp_min(1.0);
                let clipped = flat.clamp_tensor(Some(-&bound), Some(bound.shallow_clone())) / bound;
                Ok(clipped.view_as(&x_start))
            }
            Self::Dynamic(quantile) => Err(DiffusionError::OutOfRange {
                name: "the dynamic threshold's quantile",
                value: quantile,
                range: "(0, 1]",
            }),
        }
    }
}

/// The quantile of each row of `values` `[B, N]`, interpolated between its two neighbours: `[B, 1]`. (libtorch's own takes
/// no more than 2^24 numbers.)
fn row_quantile(values: &Tensor, quantile: f64) -> Tensor {
    let last = values.size()[1] - 1;
    let (sorted, _) = values.sort(1, false);
    let position = quantile * last as f64;
    let at = |index: f64| sorted.narrow(1, (index as i64).min(last), 1);
    at(position.floor()).lerp(&at(position.ceil()), position.fract())
}

pub(crate) fn check_shape(tensor: &Tensor, expected: Vec<i64>) -> Result<(), DiffusionError> {
    let found = tensor.size();
    if found == expected { Ok(()) } else { Err(DiffusionError::ModelShape { expected, found }) }
}

/// The mean over all but the batch dimension: `[B]`.
pub(crate) fn mean_flat(tensor: &Tensor) -> Tensor {
    tensor.flatten(1, -1).mean_dim(1, false, None::<Kind>)
}
