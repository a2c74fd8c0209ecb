//! Evaluating a diffusion model: the variational bound on its likelihood, and the distance of its samples from images.
//!
//! The bound is in bits per dimension. The work is divided into pairs of a batch of images and a stratum of timesteps,
//! each of which takes one forward pass. [`Strata`] divides the timesteps, [`Evaluation::add`] evaluates one pair,
//! [`BoundSums`] accumulates the pairs of this process and combines them with those of others, and
//! [`BoundSums::likelihood`] computes the results from the total. It does not matter which process evaluates which pair:
//! the noise of image i at timestep t is a function of (seed, i, t) only, and sums are `f64`.
//!
//! ```
//! use ddpm_diffusion::{BetaSchedule, Clip, Diffusion, DiffusionSpec, Loss, Prediction, Variance, Weighting, betas};
//! use ddpm_eval::{BoundSums, Evaluation, Images, Strata};
//! use tch::{Device, Kind, Tensor};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let spec = DiffusionSpec {
//!     prediction: Prediction::Eps,
//!     variance: Variance::FixedLarge,
//!     loss: Loss::Simple,
//!     weighting: Weighting::None,
//! };
//! let process = Diffusion::new(betas(&BetaSchedule::Cosine, 100)?, spec, Device::Cpu)?;
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
//! Sets of images are compared by feature vectors. [`FeatureMoments`] accumulates them to a [`Gaussian`], which has a
//! Fréchet distance to another; [`kernel_distance`] compares two [`Subsets`] of vectors; a [`Manifold`] says which
//! vectors of the other set it contains, for precision and recall.
//!
//! t is 0-based, and in a respaced process counts the retained timesteps.

mod error;
mod frechet;
mod kernel;
mod likelihood;
mod moments;
mod neighbours;
mod strata;
mod sums;

pub use error::EvalError;
pub use frechet::Gaussian;
pub use kernel::{KernelDistance, Side, Subsets, kernel_distance};
pub use likelihood::{Evaluation, Images};
pub use moments::FeatureMoments;
pub use neighbours::Manifold;
pub use strata::Strata;
pub use sums::{BoundSums, Likelihood, TimestepMeans};
