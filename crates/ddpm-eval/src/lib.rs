//! How good a diffusion model is: the variational bound on its likelihood, and how far its samples are from images.
//!
//! The bound is in bits per dimension. The work is cut into pairs of a batch of images and a stratum of timesteps, each one
//! forward pass. [`Strata`] says which timesteps a stratum holds, [`Evaluation::add`] does one pair, [`BoundSums`] takes in the pairs that this process
//! did and adds up with the sums of others, and [`BoundSums::likelihood`] reads the figures off the total. Who does which
//! pair does not matter: the noise of image i at timestep t is a function of (seed, i, t) only, and sums are `f64`.
//!
//! [`FeatureMoments`] takes in feature vectors of images, and tells the Fréchet distance to another set of them.
//!
//! t is 0-based, and in a respaced process counts the kept timesteps.

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
