//! DDIM: sampling with any amount of noise, and its deterministic reverse.

use ddpm_spec::{Ddim, Direction, NoiseInterval, Prediction};
use tch::Tensor;

use crate::error::ModelError;
use crate::process::Clip;
use crate::sampler::ReverseStep;
use crate::tables::Row;
use crate::{Diffusion, DiffusionError};

impl Diffusion {
    /// x_{t-1} = sqrt(abar_{t-1}) x_0 + sqrt(1 - abar_{t-1} - sigma²) eps + sigma noise (Song et al. 2020, eq. 12), for
    /// `t` `[B]`; without `noise` the last term is dropped.
    ///
    /// # Errors
    /// eta is outside [0, 1], or the model output's shape does not fit.
    pub fn ddim_sample(
        &self,
        model_output: &Tensor,
        x_t: &Tensor,
        t: &Tensor,
        ddim: Ddim,
        clip: Clip,
        noise: Option<&Tensor>,
    ) -> Result<ReverseStep, DiffusionError> {
        if !(0.0..=1.0).contains(&ddim.eta) {
            return Err(DiffusionError::OutOfRange { name: "DDIM's eta", value: ddim.eta, range: "[0, 1]" });
        }
        let (pred_x_start, eps) = self.x_start_and_eps(model_output, x_t, t, ddim.direction, clip)?;
        let kind = x_t.kind();
        let prev = self.exactly_at(Row::AlphasCumprodPrev, t, x_t);
        // Eq. 16 squared is eta² times the posterior's variance, which is 0 at t = 0.
        let variance = self.exactly_at(Row::PosteriorVariance, t, x_t) * (ddim.eta * ddim.eta);
        let direction: Tensor = 1.0 - &prev - &variance;
        let direction = direction.clamp_min(0.0).sqrt();
        let mean = prev.sqrt().to_kind(kind) * &pred_x_start + direction.to_kind(kind) * eps;
        let sample = match noise {
            None => mean,
            Some(noise) => mean + variance.sqrt().to_kind(kind) * noise,
        };
        Ok(ReverseStep { sample, pred_x_start })
    }

    /// The reverse of deterministic DDIM: images `x_start` to the noise at the last timestep from which
    /// [`Diffusion::sample`] leads back to them, approximately and the better the more timesteps there are.
    ///
    /// A DDIM step down to x_{t-1} goes by eps at its upper end, so this step up should too (an implicit Euler step of the
    /// ODE of Song et al. 2020, section 4.3). That end is first guessed with the last eps, where one evaluation then gives
    /// the eps that the step takes. Nothing is clipped, which has no reverse; sample without clipping too.
    ///
    /// The step up to pure noise, where the ODE's time is infinite, solves DDIM's step down for x_T with the x_0 predicted
    /// at the guess.
    ///
    /// # Errors
    /// The model fails or returns a wrong shape, or the only timestep is pure noise, which keeps nothing of an image.
    pub fn encode(
        &self,
        x_start: &Tensor,
        mut model: impl FnMut(&Tensor, &Tensor) -> Result<Tensor, ModelError>,
    ) -> Result<Tensor, DiffusionError> {
        let _guard = tch::no_grad_guard();
        if self.alphas_cumprod[0] == 0.0 {
            return Err(DiffusionError::Conflict {
                problem: "one step from an image to pure noise keeps nothing of the image",
                remedy: "Encode in 2 steps or more",
            });
        }
        let mut x = x_start.shallow_clone();
        let mut eps = x_start.zeros_like();
        for index in 0..self.timesteps() {
            let (here, next) = (self.alphas_cumprod_prev[index], self.alphas_cumprod[index]);
            let guess = ode_step(&x, here, next, &eps);
            let (t, output) = self.evaluate(index, &guess, &mut model)?;
            let pred_x_start;
            (pred_x_start, eps) = self.x_start_and_eps(&output, &guess, &t, Direction::FromModel, Clip::None)?;
            x = if next > 0.0 {
                ode_step(&x, here, next, &eps)
            } else {
                (x - here.sqrt() * pred_x_start) / (1.0 - here).sqrt()
            };
        }
        Ok(x)
    }

    /// The prediction of x_0, clipped, and the eps that `direction` names.
    pub(crate) fn x_start_and_eps(
        &self,
        model_output: &Tensor,
        x_t: &Tensor,
        t: &Tensor,
        direction: Direction,
        clip: Clip,
    ) -> Result<(Tensor, Tensor), DiffusionError> {
        let prediction = self.spec().prediction;
        let (predicted, _) = self.split(model_output, x_t)?;
        let pred_x_start = clip.apply(self.x_start_from(prediction, &predicted, x_t, t))?;
        let own = || self.eps_from(prediction, &predicted, x_t, t);
        let to_x_start = || self.eps_from(Prediction::XStart, &pred_x_start, x_t, t);
        let eps = match direction {
            Direction::FromModel => own(),
            Direction::FromXStart(NoiseInterval { low, high }) => {
                let sigma = self.exactly_at(Row::SqrtRecipM1AlphasCumprod, t, x_t);
                to_x_start().f_where_self(&sigma.gt(low).logical_and(&sigma.le(high)), &own())?
            }
        };
        Ok((pred_x_start, eps))
    }
}

/// A step of the probability-flow ODE from alphas_cumprod `here` to `next` along `eps`: in x/sqrt(abar), whose slope over
/// sigma = sqrt(1/abar - 1) is eps (Song et al. 2020, section 4.3). `here` is above 0; to `next` = 0 it leads to eps.
pub(crate) fn ode_step(x: &Tensor, here: f64, next: f64, eps: &Tensor) -> Tensor {
    if next == 0.0 {
        return eps.shallow_clone();
    }
    let sigma = |abar: f64| (1.0 / abar - 1.0).sqrt();
    next.sqrt() * (x / here.sqrt() + (sigma(next) - sigma(here)) * eps)
}
