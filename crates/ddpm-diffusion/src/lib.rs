//! The mathematics of denoising diffusion: schedules, objectives, respacing and samplers.
//!
//! A [`Diffusion`] holds one noise process: its `f64` tables, what the network predicts and what it is trained for. The
//! network itself is a function of images and timesteps:
//!
//! ```
//! use ddpm_diffusion::{
//!     BetaSchedule, Clip, Ddim, Diffusion, DiffusionSpec, Direction, Loss, ModelError, Prediction, SampleOptions,
//!     Sampler, Spacing, Stream, Variance, Weighting, betas, kept_timesteps, noise_batch,
//! };
//! use tch::{Device, Kind, Tensor};
//!
//! let spec = DiffusionSpec {
//!     prediction: Prediction::Eps,
//!     variance: Variance::FixedSmall,
//!     loss: Loss::Simple,
//!     weighting: Weighting::None,
//! };
//! let process = Diffusion::new(betas(&BetaSchedule::Cosine, 1000)?, spec, Device::Cpu)?;
//! // A stand-in for a network: it predicts no noise at all.
//! let model = |x: &Tensor, _t: &Tensor| -> Result<Tensor, ModelError> { Ok(x.zeros_like()) };
//!
//! // Training: the loss of two images, each at its own timestep.
//! let x_start = Tensor::zeros([2, 1, 8, 8], (Kind::Float, Device::Cpu));
//! let noise = noise_batch(0, Stream::Noise, &[0, 1], &[1, 8, 8]);
//! let t = Tensor::from_slice(&[10i64, 900]);
//! let x_t = process.q_sample(&x_start, &t, &noise);
//! let terms = process.training_terms(&model(&x_t, &t)?, &x_start, &x_t, &t, &noise)?;
//! assert_eq!(terms.loss.size(), [2]);
//!
//! // Sampling: two images in 20 steps of DDIM.
//! let short = process.respaced(&kept_timesteps(Spacing::Trailing, 1000, 20)?)?;
//! let options = SampleOptions {
//!     sampler: Sampler::Ddim(Ddim { eta: 0.0, direction: Direction::FromModel }),
//!     corrector: None,
//!     clip: Clip::Unit,
//!     seed: 0,
//!     indices: &[0, 1],
//!     classifier: None,
//! };
//! let start = noise_batch(0, Stream::Sample, options.indices, &[1, 8, 8]);
//! let images = short.sample(&options, start, model, |step| assert_eq!(step.steps, 20))?;
//! assert_eq!(images.size(), [2, 1, 8, 8]);
//! # Ok::<(), ModelError>(())
//! ```
//!
//! | file | contents |
//! |---|---|
//! | `schedule` | [`betas`]: the noise schedules |
//! | `tables` | [`Diffusion`] and its per-timestep constants |
//! | `process` | `q_sample`, posteriors, conversions between eps, x_start and v, `p_mean_variance` |
//! | `guidance` | [`Diffusion::guide`], [`Diffusion::guide_by_classifier`]: guidance by a weaker prediction, by a classifier |
//! | `objective` | [`Diffusion::training_terms`]: per-sample losses |
//! | `weighting` | weights of the timesteps in them |
//! | `bound` | [`Diffusion::bound_terms`]: the variational bound, term by term |
//! | `bound_by_timestep` | [`BoundByTimestep`]: the bound's terms averaged over training |
//! | `timesteps` | [`TimestepSampler`]: which t each training sample gets |
//! | `respace` | [`space_timesteps`], [`kept_timesteps`], [`Diffusion::respaced`] |
//! | `sampler`, `ancestral`, `ddim`, `heun`, `dpm_solver` | [`Diffusion::sample`], [`Diffusion::encode`] and their steps |
//! | `langevin` | [`Langevin`]: corrector steps between them |
//! | `rng` | randomness as a function of (seed, stream, position) |
//!
//! t is 0-based everywhere: `t = 0` is the least noise, a paper's `t` is ours plus one. In a respaced process t counts
//! the kept timesteps; the network is always given the original ones. Images are `[B, C, H, W]` in `[-1, 1]`.

mod ancestral;
mod bound;
mod bound_by_timestep;
mod ddim;
mod dpm_solver;
mod error;
mod guidance;
mod heun;
mod langevin;
mod objective;
mod process;
mod respace;
mod rng;
mod sampler;
mod schedule;
mod tables;
mod timesteps;
mod weighting;

pub use bound::BoundTerms;
pub use bound_by_timestep::{BoundByTimestep, quarter};
pub use ddpm_spec::{
    BetaSchedule, Ddim, DiffusionSpec, Direction, Loss, NoiseInterval, Prediction, Sampler, Spacing, TimestepSampling,
    Variance, Weighting,
};
pub use error::{DiffusionError, ModelError};
pub use langevin::Langevin;
pub use objective::Terms;
pub use process::{Clip, Gaussian, ModelPosterior};
pub use respace::{kept_timesteps, space_timesteps};
pub use rng::{Stream, noise_batch, noise_rows, normals, uniform};
pub use sampler::{ClassGradient, ReverseStep, SampleOptions, Step};
pub use schedule::betas;
pub use tables::{Diffusion, VISIBLE_SIGNAL};
pub use timesteps::{Draw, LossSecondMoment, TimestepSampler};
