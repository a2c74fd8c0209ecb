//! The variational bound of a network on images; the work is spread over the ranks.
//!
//! A unit of work is a batch of images in one stratum of timesteps, so that the contents of a forward pass do not
//! depend on the number of ranks. Rank `u % ranks` computes unit u.

use std::path::Path;
use std::sync::Arc;

use ddpm_comm::{Collective, Reduce, agree};
use ddpm_data::Source;
use ddpm_diffusion::{Clip, Diffusion};
use ddpm_eval::{BoundSums, EvalError, Evaluation, Images, Strata};
use ddpm_nn::{Inputs, Network, Weights};

use crate::error::{Error, Failure};
use crate::shuffled::{ImageBatch, ShuffledImages};

/// What to evaluate, and how.
pub struct BoundTask<'a> {
    /// The model and its weights in a phrase, for messages.
    pub name: &'a str,
    /// The network.
    pub network: &'a Network,
    /// Its weights.
    pub weights: &'a Weights,
    /// The process; a respaced one for the bound of fewer timesteps.
    pub process: &'a Diffusion,
    /// Its timesteps, in strata.
    pub strata: &'a Strata,
    /// How each predicted image is clipped.
    pub clip: Clip,
    /// Seed of the noise, of the timesteps drawn, and of the choice of images.
    pub seed: u64,
    /// Images per forward pass.
    pub batch: usize,
}

impl BoundTask<'_> {
    /// The number of units of work for `count` images.
    pub fn units(&self, count: usize) -> usize {
        count.div_ceil(self.batch) * self.strata.len()
    }

    /// The sums over `count` images of `source`, decoded by `workers` threads, on every rank; `progress` gets the
    /// number of units done by all ranks together.
    ///
    /// # Errors
    /// An image cannot be read, or the network gives values that are not finite.
    pub fn evaluate(
        &self,
        comm: &dyn Collective,
        source: &Arc<dyn Source>,
        count: usize,
        workers: usize,
        progress: impl Fn(usize),
    ) -> Result<BoundSums, Failure> {
        let units = self.units(count);
        let mut sums = BoundSums::new(self.strata, count);
        let device = self.weights.flat().device();
        let timesteps = &self.process.timestep_map;
        let weights = self.network.at_timesteps(self.weights, timesteps).map_err(Error::from);
        let weights = &agree::unanimous(comm, weights)?;
        let images = ShuffledImages::new(source, self.seed, self.batch, workers, device);
        let mut images = agree::unanimous(comm, images)?;
        for round in (0..units).step_by(comm.size()) {
            let unit = round + comm.rank();
            let added = if unit < units { self.add(&mut sums, &mut images, weights, unit, count) } else { Ok(()) };
            // Exchanged in every round, so that all ranks end as soon as one fails.
            agree::unanimous(comm, added)?;
            progress((round + comm.size()).min(units));
        }
        sums.merge(|values| comm.all_reduce_f64(values, Reduce::Sum));
        Ok(sums)
    }

    fn add(
        &self,
        sums: &mut BoundSums,
        images: &mut ShuffledImages,
        weights: &Weights,
        unit: usize,
        count: usize,
    ) -> Result<(), Error> {
        let (number, stratum) = (unit / self.strata.len(), unit % self.strata.len());
        let first = number * self.batch;
        let ImageBatch { ids, x_start, labels } = images.batch(number, self.batch.min(count - first))?;
        let evaluation = Evaluation { process: self.process, strata: self.strata, clip: self.clip, seed: self.seed };
        let labels = self.network.classes().map(|_| labels);
        let added = evaluation.add(sums, &Images { x_start, ids, first }, stratum, |x, t| {
            Ok(self.network.forward(weights, &Inputs { x, t, labels, dropout: None })?)
        });
        added.map_err(|error| match error {
            EvalError::NotFinite { .. } => Error::from(error).within(Path::new(self.name)),
            error => error.into(),
        })
    }
}
