//! Heun's method: the probability-flow ODE at second order, two evaluations a step.

use ddpm_spec::{Direction, NoiseInterval};
use tch::Tensor;

use crate::ddim::ode_step;
use crate::error::ModelError;
use crate::process::Clip;
use crate::sampler::ReverseStep;
use crate::{Diffusion, DiffusionError};

impl Diffusion {
    /// One step from this process's timestep `index` to the one before (Karras et al. 2022, algorithm 1 without churn):
    /// in x/sqrt(abar), whose slope over sigma = sqrt(1/abar - 1) is eps, along the mean of eps here and eps at the end
    /// of the Euler step, which is DDIM's.
    ///
    /// The step from t = 0 to abar = 1, where no network was trained, stays an Euler step, and so does one from pure noise,
    /// where sigma is infinite. N steps thus take 2N - 1 evaluations, or 2N - 2.
    pub(crate) fn heun_step(
        &self,
        model_output: &Tensor,
        x_t: &Tensor,
        index: usize,
        clip: Clip,
        model: &mut impl FnMut(&Tensor, &Tensor) -> Result<Tensor, ModelError>,
    ) -> Result<ReverseStep, DiffusionError> {
        let t = self.full_t(index, x_t.size()[0]);
        let (pred_x_start, eps) =
            self.x_start_and_eps(model_output, x_t, &t, Direction::FromXStart(NoiseInterval::ALL), clip)?;
        if index == 0 {
            return Ok(ReverseStep { sample: pred_x_start.shallow_clone(), pred_x_start });
        }
        let (here, next) = (self.alphas_cumprod[index], self.alphas_cumprod[index - 1]);
        if here == 0.0 {
            let sample = next.sqrt() * &pred_x_start + (1.0 - next).sqrt() * eps;
            return Ok(ReverseStep { sample, pred_x_start });
        }
        let euler = ode_step(x_t, here, next, &eps);
        let (t, output) = self.evaluate(index - 1, &euler, model)?;
        let (_, eps_there) =
            self.x_start_and_eps(&output, &euler, &t, Direction::FromXStart(NoiseInterval::ALL), clip)?;
        Ok(ReverseStep { sample: ode_step(x_t, here, next, &((eps + eps_there) * 0.5)), pred_x_start })
    }
}
