//! One forward pass of the bound: a batch of images, each at its timestep of one stratum.

use ddpm_diffusion::{Clip, Diffusion, ModelError, Stream, noise_rows};
use tch::{Kind, Tensor};

use crate::{BoundSums, EvalError, Strata};

/// How the bound is evaluated: the settings shared by all batches.
#[derive(Clone, Copy, Debug)]
pub struct Evaluation<'a> {
    /// The process; a respaced one for the bound of fewer timesteps.
    pub process: &'a Diffusion,
    /// The timesteps of the process, in strata.
    pub strata: &'a Strata,
    /// How each predicted x_0 is clipped; published results use [`Clip::Unit`].
    pub clip: Clip,
    /// Seed of the noise and of the timesteps drawn.
    pub seed: u64,
}

/// A batch of images to evaluate.
#[derive(Debug)]
pub struct Images<'a> {
    /// `[B, C, H, W]`, the 256 grey levels in `[-1, 1]`, on the process's device.
    pub x_start: &'a Tensor,
    /// The id of each image, `[B]`, which determines its noise and timesteps.
    pub ids: &'a [u64],
    /// Index of the first image among all images evaluated; the others follow consecutively.
    pub first: usize,
}

impl Evaluation<'_> {
    /// Adds the terms of `images` in one stratum to `sums`; for the first stratum, also their prior terms.
    ///
    /// `model` receives the noised images and the original timesteps `[B]`.
    ///
    /// # Errors
    /// If the model fails, or returns a wrong shape or non-finite values.
    pub fn add(
        &self,
        sums: &mut BoundSums,
        images: &Images,
        stratum: usize,
        model: impl FnOnce(&Tensor, &Tensor) -> Result<Tensor, ModelError>,
    ) -> Result<(), EvalError> {
        let x_start = images.x_start;
        let draws: Vec<usize> = images.ids.iter().map(|&id| self.strata.draw(stratum, self.seed, id)).collect();
        let stream = |t: usize| Stream::Bound(self.process.timestep_map[t] as u64);
        let rows: Vec<(Stream, u64)> = draws.iter().zip(images.ids).map(|(&t, &id)| (stream(t), id)).collect();
        let noise = noise_rows(self.seed, &rows, &x_start.size()[1..]).to_device(x_start.device());
        let t: Vec<i64> = draws.iter().map(|&t| t as i64).collect();
        let t = Tensor::from_slice(&t).to_device(x_start.device());
        let terms = self.process.bound_terms(x_start, &t, &noise, self.clip, model)?;
        sums.add_terms(images.first, &draws, &terms)?;
        if stratum == 0 {
            // In f64: the KL divergence of a nearly standard normal is lost to rounding in f32.
            sums.add_prior(images.first, &self.process.prior_bpd(&x_start.to_kind(Kind::Double)))?;
        }
        Ok(())
    }
}
