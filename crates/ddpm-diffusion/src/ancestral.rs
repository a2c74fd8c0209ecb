//! Ancestral sampling.

use tch::Tensor;

use crate::process::Clip;
use crate::sampler::ReverseStep;
use crate::{Diffusion, DiffusionError};

impl Diffusion {
    /// x_{t-1} = mean + sqrt(variance) noise under p(x_{t-1} | x_t) (Ho et al. 2020, algorithm 2), for `t` `[B]`.
    ///
    /// Samples at t = 0 take the mean: no noise is added there. Without `noise` none is added anywhere.
    ///
    /// With `gradient`, s grad log p(y | x_t) of a classifier, the mean becomes mean + variance * gradient (Dhariwal &
    /// Nichol 2021, algorithm 1).
    ///
    /// # Errors
    /// The model output's shape does not fit x_t and the kind of variance.
    pub fn p_sample(
        &self,
        model_output: &Tensor,
        x_t: &Tensor,
        t: &Tensor,
        clip: Clip,
        noise: Option<&Tensor>,
        gradient: Option<&Tensor>,
    ) -> Result<ReverseStep, DiffusionError> {
        let posterior = self.p_mean_variance(model_output, x_t, t, clip)?;
        let mean = match gradient {
            None => posterior.mean,
            Some(gradient) => posterior.mean + posterior.variance * gradient,
        };
        let sample = match noise {
            None => mean,
            Some(noise) => {
                let noisy = t.ne(0).to_kind(x_t.kind()).view([-1, 1, 1, 1]);
                mean + noisy * (posterior.log_variance * 0.5).exp() * noise
            }
        };
        Ok(ReverseStep { sample, pred_x_start: posterior.pred_x_start })
    }
}
