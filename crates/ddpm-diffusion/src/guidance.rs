//! Guidance: predictions pushed away from a weaker one, or towards a class by a classifier.

use ddpm_spec::{Prediction, Variance};
use tch::Tensor;

use crate::tables::{Diffusion, Row};
use crate::{DiffusionError, process};

/// The least standard deviation of a guided prediction that its rescaling divides by.
const TINY: f64 = 1e-12;

impl Diffusion {
    /// Guidance away from a weaker prediction: `weaker + scale (output - weaker)` on the prediction.
    ///
    /// With the network's own prediction without a class as the weaker one this is classifier-free guidance (Ho & Salimans
    /// 2022, eq. 6, whose w is `scale - 1`); with another network's, autoguidance (Karras et al. 2024). `scale` 1 is
    /// `output` itself and 0 the weaker one. `weaker` is `[B, C, H, W]`; further channels are ignored. A learned variance
    /// is that of `output`.
    ///
    /// `rescale`, phi in [0, 1], then moves the standard deviation of each sample's prediction towards that of `output`,
    /// which larger scales exceed (Lin et al. 2023, eq. 15, 16): to phi times the one and 1 - phi times the other.
    ///
    /// # Errors
    /// The two outputs differ in shape, or `rescale` is outside [0, 1].
    pub fn guide(&self, output: &Tensor, weaker: &Tensor, scale: f64, rescale: f64) -> Result<Tensor, DiffusionError> {
        if !(0.0..=1.0).contains(&rescale) {
            return Err(DiffusionError::OutOfRange { name: "guidance's rescale", value: rescale, range: "[0, 1]" });
        }
        let total = output.size()[1];
        let channels = if self.spec().variance == Variance::LearnedRange { total / 2 } else { total };
        let prediction = output.narrow(1, 0, channels);
        let weaker = weaker.narrow(1, 0, channels.min(weaker.size()[1]));
        process::check_shape(&weaker, prediction.size())?;
        let mut guided = &weaker + scale * (&prediction - &weaker);
        if rescale > 0.0 {
            let spread = |x: &Tensor| x.std_dim([1i64, 2, 3].as_slice(), true, true);
            let ratio = spread(&prediction) / spread(&guided).clamp_min(TINY);
            guided = rescale * (&guided * ratio) + (1.0 - rescale) * guided;
        }
        if channels == total {
            return Ok(guided);
        }
        Ok(Tensor::f_cat(&[guided, output.narrow(1, channels, total - channels)], 1)?)
    }

    /// The prediction in this process's model output at `x_t`, as a network would make it that predicts `kind`:
    /// `[B, C, H, W]`, for `t` `[B]`.
    ///
    /// # Errors
    /// The output's shape does not fit x_t and the kind of variance.
    pub fn prediction_as(
        &self,
        kind: Prediction,
        model_output: &Tensor,
        x_t: &Tensor,
        t: &Tensor,
    ) -> Result<Tensor, DiffusionError> {
        let own = self.spec().prediction;
        let (predicted, _) = self.split(model_output, x_t)?;
        if kind == own {
            return Ok(predicted);
        }
        let x_start = self.x_start_from(own, &predicted, x_t, t);
        let eps = self.eps_from(own, &predicted, x_t, t);
        Ok(self.target(kind, &x_start, &eps, t))
    }

    /// Classifier guidance of deterministic samplers (Dhariwal & Nichol 2021, algorithm 2): the model output whose eps is
    /// `eps - sqrt(1 - abar_t) gradient`, that is, whose score is that of p(x_t) p(y | x_t)^s. `gradient` is
    /// s grad log p(y | x_t), `[B, C, H, W]`, at a `t` where abar is not 0. A learned variance stays.
    ///
    /// # Errors
    /// A shape does not fit x_t.
    pub fn guide_by_classifier(
        &self,
        model_output: &Tensor,
        gradient: &Tensor,
        t: &Tensor,
    ) -> Result<Tensor, DiffusionError> {
        let (predicted, variance_channels) = self.split(model_output, gradient)?;
        let noise_scale = self.at(Row::SqrtOneMinusAlphasCumprod, t, gradient);
        let noise_to_signal = self.at(Row::SqrtRecipM1AlphasCumprod, t, gradient);
        // The same shift of eps, in terms of x_0 and of v.
        let guided = match self.spec().prediction {
            Prediction::Eps => predicted - noise_scale * gradient,
            Prediction::XStart => predicted + noise_scale * noise_to_signal * gradient,
            Prediction::V => predicted - noise_to_signal * gradient,
        };
        Ok(match variance_channels {
            None => guided,
            Some(channels) => Tensor::f_cat(&[guided, channels], 1)?,
        })
    }
}
