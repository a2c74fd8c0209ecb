//! The mathematics of denoising diffusion: schedules, objectives, respacing and samplers.
//!
//! A [`Diffusion`] holds one noise process: its `f64` tables, what the network predicts and what it is trained for.
//! Everything else is a method on it or a small type beside it:
//!
//! | file | what |
//! |---|---|
//! | `schedule` | [`betas`]: the noise schedules |
//! | `tables` | [`Diffusion`] and its per-timestep constants |
//! | `process` | `q_sample`, posteriors, conversions between eps, x_start and v, `p_mean_variance`, guidance |
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
    BetaSchedule, Ddim, DiffusionSpec, Direction, Loss, Prediction, Sampler, Spacing, TimestepSampling, Variance,
    Weighting,
};
pub use error::{DiffusionError, ModelError};
pub use langevin::Langevin;
pub use objective::Terms;
pub use process::{Clip, Gaussian, ModelPosterior};
pub use respace::{kept_timesteps, space_timesteps};
pub use rng::{Stream, noise_batch, noise_rows, uniform};
pub use sampler::{ClassGradient, ReverseStep, SampleOptions, Step};
pub use schedule::betas;
pub use tables::{Diffusion, VISIBLE_SIGNAL};
pub use timesteps::{Draw, LossSecondMoment, TimestepSampler};
