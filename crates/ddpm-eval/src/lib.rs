//! Evaluating a diffusion model: the variational bound on its likelihood, and the Fréchet distance of its samples.
//!
//! The bound is in bits per dimension. The work is divided into pairs of a batch of images and a stratum of timesteps,
//! each of which takes one forward pass. [`Strata`] divides the timesteps, [`Evaluation::add`] evaluates one pair,
//! [`BoundSums`] accumulates the pairs of this process and combines them with those of others, and
//! [`BoundSums::likelihood`] computes the results from the total. It does not matter which process evaluates which pair:
//! the noise of image i at timestep t is a function of (seed, i, t) only, and sums are `f64`.
//!
//! ```
//! use ddpm_diffusion::{BetaSchedule, Clip, Diffusion, Loss, Prediction, Settings, VarianceKind, Weighting};
//! use ddpm_eval::{BoundSums, Evaluation, Images, Strata};
//! use tch::{Device, Kind, Tensor};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings {
//!     prediction: Prediction::Eps,
//!     variance: VarianceKind::FixedLarge,
//!     loss: Loss::Vlb,
//!     weighting: Weighting::None,
//! };
//! let process = Diffusion::new(BetaSchedule::Cosine.betas(100)?, settings, Device::Cpu)?;
//! let strata = Strata::sampled(100, 10)?; // 10 of 100 timesteps per image; Strata::every(100) is exact.
//! let evaluation = Evaluation { process: &process, strata: &strata, clip: Clip::Unit, seed: 0 };
//! let x_start = Tensor::zeros([2, 1, 8, 8], (Kind::Float, Device::Cpu));
//! let mut sums = BoundSums::new(&strata, 2);
//! for stratum in 0..strata.len() {
//!     let images = Images { x_start: &x_start, ids: &[0, 1], first: 0 };
//!     evaluation.add(&mut sums, &images, stratum, |x, _t| Ok(x * 0.5))?; // In place of a network.
//! }
//! assert!(sums.likelihood().bits_per_dim > 0.0);
//! # Ok(())
//! # }
//! ```
//!
//! [`FeatureMoments`] accumulates feature vectors of images, and computes the Fréchet distance to another set of them.
//!
//! t is 0-based, and in a respaced process counts the retained timesteps.

mod error;
mod frechet;
mod likelihood;
mod strata;
mod sums;

pub use error::EvalError;
pub use frechet::FeatureMoments;
pub use likelihood::{Evaluation, Images};
pub use strata::Strata;
pub use sums::{BoundSums, Likelihood, TimestepMeans};
