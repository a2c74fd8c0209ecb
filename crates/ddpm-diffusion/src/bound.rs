//! The terms of the variational bound, one timestep of each image at a time.

use ddpm_spec::Prediction;
use tch::Tensor;

use crate::error::ModelError;
use crate::process::{Clip, mean_flat};
use crate::{Diffusion, DiffusionError};

/// What each image of a batch contributes at its timestep, each `[B]`.
#[derive(Debug)]
pub struct BoundTerms {
    /// Its term of the bound in bits per dimension; at t = 0 the decoder's.
    pub vb: Tensor,
    /// Mean squared error of eps, as the clipped x_0 implies it.
    pub mse: Tensor,
    /// Mean squared error of x_0, clipped.
    pub xstart_mse: Tensor,
    /// The training objective's loss, for which nothing is clipped.
    pub loss: Tensor,
}

impl Diffusion {
    /// One draw of the term at `t` `[B]` of the bound on -log2 p(x_0) (Ho et al. 2020, eq. 5).
    ///
    /// Summed over every t, with [`Diffusion::prior_bpd`], the terms make the bound. `x_start` `[B, C, H, W]` holds the
    /// 256 grey levels in `[-1, 1]`, `noise` is of the same shape; `model` gets the images and the original timesteps
    /// `[B]`. Published figures use [`Clip::Unit`].
    ///
    /// # Errors
    /// The model fails or returns a wrong shape.
    pub fn bound_terms(
        &self,
        x_start: &Tensor,
        t: &Tensor,
        noise: &Tensor,
        clip: Clip,
        model: impl FnOnce(&Tensor, &Tensor) -> Result<Tensor, ModelError>,
    ) -> Result<BoundTerms, DiffusionError> {
        let _guard = tch::no_grad_guard();
        let x_t = self.q_sample(x_start, t, noise);
        let model_t = self.model_timesteps(t);
        let output =
            model(&x_t, &model_t).map_err(|source| DiffusionError::Model { t: model_t.int64_value(&[0]), source })?;
        let loss = self.training_terms(&output, x_start, &x_t, t, noise)?.loss;
        let term = self.bound_term(self.p_mean_variance(&output, &x_t, t, clip)?, x_start, &x_t, t);
        let eps = self.eps_from(Prediction::XStart, &term.pred_x_start, &x_t, t);
        Ok(BoundTerms {
            vb: term.vb,
            mse: mean_flat(&(eps - noise).square()),
            xstart_mse: mean_flat(&(term.pred_x_start - x_start).square()),
            loss,
        })
    }
}
