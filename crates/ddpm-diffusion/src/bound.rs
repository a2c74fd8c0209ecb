//! The variational bound over all timesteps, in bits per dimension.

use tch::{Kind, Tensor};

use crate::error::ModelError;
use crate::process::{Clip, Prediction, mean_flat};
use crate::{Diffusion, DiffusionError};

/// A batch's bound with its raw terms, in bits per dimension where not said otherwise. Columns are t ascending.
#[derive(Debug)]
pub struct Bound {
    /// L_T + sum of `vb`: `[B]`.
    pub total_bpd: Tensor,
    /// L_T: `[B]`.
    pub prior_bpd: Tensor,
    /// The term at each t; column 0 is the decoder's: `[B, T]`.
    pub vb: Tensor,
    /// Mean squared error of eps: `[B, T]`.
    pub mse: Tensor,
    /// Mean squared error of x_0: `[B, T]`.
    pub xstart_mse: Tensor,
}

impl Diffusion {
    /// The bound on -log2 p(x_0) of Ho et al. 2020, eq. 5, one draw of x_t for each t.
    ///
    /// `x_start` `[B, C, H, W]` holds the 256 grey levels in `[-1, 1]`. `noise(t)` returns the draw's noise, of the same
    /// shape, for this process's t; `model` gets the images and the original timesteps `[B]`. Published figures use
    /// [`Clip::Unit`].
    ///
    /// # Errors
    /// The model fails or returns a wrong shape.
    pub fn bits_per_dim(
        &self,
        x_start: &Tensor,
        clip: Clip,
        mut noise: impl FnMut(usize) -> Tensor,
        mut model: impl FnMut(&Tensor, &Tensor) -> Result<Tensor, ModelError>,
    ) -> Result<Bound, DiffusionError> {
        let _guard = tch::no_grad_guard();
        let (mut vb, mut mse, mut xstart_mse) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..self.timesteps() {
            let noise = noise(index);
            let x_t = self.q_sample(x_start, &self.full_t(index, x_start.size()[0]), &noise);
            let (t, output) = self.evaluate(index, &x_t, &mut model)?;
            let term = self.bound_term(self.p_mean_variance(&output, &x_t, &t, clip)?, x_start, &x_t, &t);
            let eps = self.eps_from(Prediction::XStart, &term.pred_x_start, &x_t, &t);
            xstart_mse.push(mean_flat(&(term.pred_x_start - x_start).square()));
            mse.push(mean_flat(&(eps - noise).square()));
            vb.push(term.vb);
        }
        let vb = Tensor::f_stack(&vb, 1)?;
        let prior_bpd = self.prior_bpd(x_start);
        Ok(Bound {
            total_bpd: vb.sum_dim_intlist(1, false, None::<Kind>) + &prior_bpd,
            prior_bpd,
            vb,
            mse: Tensor::f_stack(&mse, 1)?,
            xstart_mse: Tensor::f_stack(&xstart_mse, 1)?,
        })
    }
}
