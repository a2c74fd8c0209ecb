//! Langevin corrector steps: at one noise level, towards images that are likely there according to the network.

use ddpm_spec::{Direction, NoiseInterval};
use tch::{Kind, Tensor};

use crate::process::Clip;
use crate::tables::Row;
use crate::{Diffusion, DiffusionError};

/// The corrector of predictor-corrector sampling (Song et al. 2021, algorithm 5).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Langevin {
    /// Corrector steps after each step of the sampler but the last, one evaluation each.
    pub steps: usize,
    /// r, the ratio of step to noise, in (0, 1): the paper's "signal-to-noise ratio", there 0.01 to 0.2.
    pub snr: f64,
}

impl Langevin {
    pub(crate) fn validate(self) -> Result<(), DiffusionError> {
        if self.snr > 0.0 && self.snr < 1.0 {
            return Ok(());
        }
        Err(DiffusionError::OutOfRange {
            name: "the corrector's signal-to-noise ratio",
            value: self.snr,
            range: "(0, 1)",
        })
    }
}

impl Diffusion {
    /// x_t + h g + sqrt(2h) noise with the score g = -eps/sqrt(1 - abar_t) and, for each image on its own,
    /// h = 2 alpha_t (r |noise|/|g|)² (Song et al. 2021, algorithm 5, where the norms are means over the batch), for `t`
    /// `[B]`. |noise|/|g| is limited to 1, which it does not exceed for images in `[-1, 1]` unless the network is far off.
    ///
    /// The distribution of x_t stays the same up to the error of the finite step: about r² alpha_t of the variance at its
    /// stationary point.
    ///
    /// # Errors
    /// `snr` is outside (0, 1), or the model output's shape does not fit.
    pub fn langevin_step(
        &self,
        model_output: &Tensor,
        x_t: &Tensor,
        t: &Tensor,
        corrector: Langevin,
        clip: Clip,
        noise: &Tensor,
    ) -> Result<Tensor, DiffusionError> {
        let (_, eps) = self.x_start_and_eps(model_output, x_t, t, Direction::FromXStart(NoiseInterval::ALL), clip)?;
        let score = -eps / self.at(Row::SqrtOneMinusAlphasCumprod, t, x_t);
        let alpha = self.exactly_at(Row::AlphasCumprod, t, x_t) / self.exactly_at(Row::AlphasCumprodPrev, t, x_t);
        let square = |x: &Tensor| x.square().sum_dim_intlist([1, 2, 3].as_slice(), true, Kind::Double);
        let ratio = (square(noise) / square(&score)).clamp_max(1.0);
        let step = (alpha * ratio * (2.0 * corrector.snr * corrector.snr)).to_kind(x_t.kind());
        Ok(x_t + &step * score + (step * 2.0).sqrt() * noise)
    }
}
