//! From noise to images: the loop that every sampler shares.

use ddpm_spec::Sampler;
use tch::Tensor;

use crate::error::ModelError;
use crate::process::Clip;
use crate::rng::{Stream, noise_batch};
use crate::{Diffusion, DiffusionError, Langevin};

/// How a batch of images is sampled.
#[derive(Clone, Copy, Debug)]
pub struct SampleOptions<'a> {
    /// The update rule.
    pub sampler: Sampler,
    /// Corrector steps between the sampler's.
    pub corrector: Option<Langevin>,
    /// How each predicted x_0 is clipped.
    pub clip: Clip,
    /// The seed of the noise added on the way.
    pub seed: u64,
    /// Each image's own index, `[B]`: image i is the same in any batch.
    pub indices: &'a [u64],
    /// Guidance by a classifier.
    pub classifier: Option<ClassGradient<'a>>,
}

/// Classifier guidance (Dhariwal & Nichol 2021): s grad log p(y | x_t) with respect to the images, `[B, C, H, W]`, at
/// images and original timesteps `[B]`. Ancestral sampling shifts the mean by it (algorithm 1), the deterministic
/// samplers shift eps (algorithm 2).
#[derive(Clone, Copy)]
pub struct ClassGradient<'a>(pub &'a dyn Fn(&Tensor, &Tensor) -> Result<Tensor, ModelError>);

impl std::fmt::Debug for ClassGradient<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("ClassGradient")
    }
}

/// What an observer of the loop sees after each step: enough for a progress bar or a collected trajectory.
#[derive(Debug)]
pub struct Step<'a> {
    /// Steps done, from 1 to `steps`.
    pub done: usize,
    /// Steps in all.
    pub steps: usize,
    /// The original timestep that the step started from.
    pub t: i64,
    /// The images after the step and its corrections, `[B, C, H, W]`.
    pub x: &'a Tensor,
    /// The prediction of x_0 that the step used, clipped.
    pub pred_x_start: &'a Tensor,
}

/// One step's outcome, both `[B, C, H, W]`.
#[derive(Debug)]
pub struct ReverseStep {
    /// x_{t-1}, or x_{t+1} where encoding.
    pub sample: Tensor,
    /// The prediction of x_0 behind it, clipped.
    pub pred_x_start: Tensor,
}

impl Diffusion {
    /// Samples images over all this process's timesteps, starting from noise `x_t` `[B, C, H, W]`; respace the process
    /// first for fewer steps. Needs no gradients and records none.
    ///
    /// `model` gets the images and the original timesteps `[B]`; wrap [`Diffusion::guide`] into it for guidance.
    /// `observe` sees every step.
    ///
    /// # Errors
    /// The model fails or returns a wrong shape, the number of indices is not the batch, an option is out of range,
    /// DPM-Solver++ has a corrector (it extrapolates from its last step, which a correction invalidates), or a classifier
    /// guides Heun's sampler or a corrector.
    pub fn sample(
        &self,
        options: &SampleOptions,
        x_t: Tensor,
        mut model: impl FnMut(&Tensor, &Tensor) -> Result<Tensor, ModelError>,
        mut observe: impl FnMut(Step),
    ) -> Result<Tensor, DiffusionError> {
        let shape = x_t.size();
        if shape[0] != options.indices.len() as i64 {
            return Err(DiffusionError::SampleIndices { indices: options.indices.len(), batch: shape[0] });
        }
        if options.corrector.is_some() && options.sampler == Sampler::DpmSolver {
            return Err(DiffusionError::Conflict {
                problem: "DPM-Solver++ extrapolates from its last step and allows no corrector in between",
                remedy: "Leave the corrector out, or choose the ancestral, ddim or heun sampler",
            });
        }
        if options.classifier.is_some() && (options.corrector.is_some() || options.sampler == Sampler::Heun) {
            return Err(DiffusionError::Conflict {
                problem: "a classifier guides one evaluation a step, and Heun's sampler and the corrector make more",
                remedy: "Leave the corrector out and choose the ancestral, ddim or dpmpp sampler",
            });
        }
        options.corrector.map_or(Ok(()), Langevin::validate)?;
        let _guard = tch::no_grad_guard();
        let steps = self.timesteps();
        let mut x = x_t;
        let mut previous = None;
        for index in (0..steps).rev() {
            let (t, mut output) = self.evaluate(index, &x, &mut model)?;
            // Pure noise says nothing about the class: its gradient is 0.
            let classifier = options.classifier.filter(|_| self.alphas_cumprod[index] > 0.0);
            let gradient = classifier.map(|classifier| (classifier.0)(&x, &self.model_timesteps(&t)));
            let gradient =
                gradient.transpose().map_err(|source| DiffusionError::Model { t: self.timestep_map[index], source })?;
            if let (Some(gradient), true) = (&gradient, options.sampler != Sampler::Ancestral) {
                output = self.guide_by_classifier(&output, gradient, &t)?;
            }
            let draw = |stream| {
                noise_batch(options.seed, stream, options.indices, &shape[1..]).to_device(x.device()).to_kind(x.kind())
            };
            let noise = || draw(Stream::SampleStep(self.timestep_map[index] as u64));
            let step = match options.sampler {
                // The last step adds no noise, so none is drawn.
                Sampler::Ancestral => {
                    let noise = (index > 0).then(noise);
                    self.p_sample(&output, &x, &t, options.clip, noise.as_ref(), gradient.as_ref())?
                }
                Sampler::Ddim(ddim) => {
                    let noise = (index > 0 && ddim.eta > 0.0).then(noise);
                    self.ddim_sample(&output, &x, &t, ddim, options.clip, noise.as_ref())?
                }
                Sampler::Heun => self.heun_step(&output, &x, index, options.clip, &mut model)?,
                Sampler::DpmSolver => self.dpm_solver_step(&output, &x, index, options.clip, previous.as_ref())?,
            };
            let mut next = step.sample;
            // There is no score at abar = 1, where the last step leads.
            if let (Some(corrector), Some(index)) = (options.corrector, index.checked_sub(1)) {
                for step in 0..corrector.steps as u64 {
                    let (t, output) = self.evaluate(index, &next, &mut model)?;
                    let noise = draw(Stream::Corrector { t: self.timestep_map[index] as u64, step });
                    next = self.langevin_step(&output, &next, &t, corrector, options.clip, &noise)?;
                }
            }
            x = next;
            let (done, t) = (steps - index, self.timestep_map[index]);
            observe(Step { done, steps, t, x: &x, pred_x_start: &step.pred_x_start });
            previous = Some(step.pred_x_start);
        }
        Ok(x)
    }

    /// The model's output at this process's timestep `index`, and `t` `[B]` of that index.
    pub(crate) fn evaluate(
        &self,
        index: usize,
        x: &Tensor,
        model: &mut impl FnMut(&Tensor, &Tensor) -> Result<Tensor, ModelError>,
    ) -> Result<(Tensor, Tensor), DiffusionError> {
        let t = self.full_t(index, x.size()[0]);
        let output = model(x, &self.model_timesteps(&t))
            .map_err(|source| DiffusionError::Model { t: self.timestep_map[index], source })?;
        Ok((t, output))
    }
}
