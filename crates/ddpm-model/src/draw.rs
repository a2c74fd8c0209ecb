//! Draws images from a network; every rank draws its share. Image i depends only on (seed, i).

use std::ops::Range;

use ddpm_comm::{Collective, agree, partition};
use ddpm_diffusion::{
    ClassGradient, Clip, Diffusion, Langevin, ModelError, SampleOptions, Sampler, Step, Stream, noise_batch,
};
use ddpm_nn::{Inputs, Network, Weights};
use tch::Tensor;

use crate::error::{Error, Failure};
use crate::finite;
use crate::guides::Guided;
use crate::images::floats;
use crate::model::Model;

/// What to draw, and how.
pub struct Generation<'a> {
    /// The model and its weights in a phrase, for messages.
    pub name: &'a str,
    /// The network.
    pub network: &'a Network,
    /// Its weights.
    pub weights: &'a Weights,
    /// The diffusion process, respaced to the steps to take.
    pub process: &'a Diffusion,
    /// The update rule.
    pub sampler: Sampler,
    /// Corrector steps between the steps of the sampler.
    pub corrector: Option<Langevin>,
    /// How each predicted image is clipped.
    pub clip: Clip,
    /// Seed of the noise.
    pub seed: u64,
    /// The class of each image, for a class-conditional network or a classifier; one entry per image.
    pub labels: Option<&'a [i64]>,
    /// How each step is guided.
    pub guided: Guided<'a>,
    /// Initial noise `[N, C, H, W]` instead of drawn noise.
    pub init_noise: Option<&'a Tensor>,
    /// Images drawn at a time: of a forward pass, or half as many as it takes where it predicts with and without a class.
    pub batch: usize,
    /// Number of images, counted from the first, for which the state after every step is kept.
    pub trajectories: usize,
}

/// Drawn images: a batch, or all of them.
#[derive(Default)]
pub struct Drawn {
    /// f32 `[N, C, H, W]` in `[-1, 1]`, not clamped.
    pub samples: Vec<f32>,
    /// f32 `[M, steps, C, H, W]` for the M images whose trajectories are kept.
    pub trajectories: Vec<f32>,
}

impl<'a> Generation<'a> {
    /// Unguided images clipped to [-1, 1], drawn from noise with seed 0, 64 at a time, without trajectories.
    pub fn new(
        name: &'a str,
        network: &'a Network,
        weights: &'a Weights,
        process: &'a Diffusion,
        sampler: Sampler,
    ) -> Self {
        Self {
            name,
            network,
            weights,
            process,
            sampler,
            corrector: None,
            clip: Clip::Unit,
            seed: 0,
            labels: None,
            guided: Guided::default(),
            init_noise: None,
            batch: 64,
            trajectories: 0,
        }
    }

    /// Unguided images of a model. `process` is the model's own process, respaced or not; clipping follows the
    /// model's default. Otherwise like [`new`](Self::new).
    pub fn of(model: &'a Model, process: &'a Diffusion, sampler: Sampler) -> Self {
        let clip = if model.clips { Clip::Unit } else { Clip::None };
        Self { clip, ..Self::new(&model.description, &model.network, &model.weights, process, sampler) }
    }

    /// Draws images `0..count`, distributed over the ranks. Each of this rank's batches is passed to `take`, with the
    /// indices of its images, as soon as it is drawn. `progress` is called with (done, total) after each step of this
    /// rank's share, in steps of single images. Ranks agree after each batch, so that a failure on one rank ends all
    /// of them.
    pub fn run(
        &self,
        comm: &dyn Collective,
        count: usize,
        progress: impl Fn(usize, usize),
        mut take: impl FnMut(Range<usize>, Drawn) -> Result<(), Error>,
    ) -> Result<(), Failure> {
        let range = partition(count, comm.rank(), comm.size());
        let weights = self.network.at_timesteps(self.weights, &self.process.timestep_map).map_err(Error::from);
        let weights = agree::unanimous(comm, weights)?;
        let total = range.len() * self.process.timesteps();
        let mut done = 0;
        let mut report_step = |images: usize| {
            done += images;
            progress(done, total);
        };
        let rounds = count.div_ceil(comm.size()).div_ceil(self.batch);
        for start in (range.start..).step_by(self.batch).take(rounds) {
            let batch = start.min(range.end)..(start + self.batch).min(range.end);
            let drawn = if batch.is_empty() { Ok(()) } else { self.draw(&weights, batch, &mut report_step, &mut take) };
            agree::unanimous(comm, drawn)?;
        }
        Ok(())
    }

    /// Draws images `0..count`, distributed over the ranks. Rank 0 receives all of them in order; the other ranks
    /// receive none.
    pub fn gather(
        &self,
        comm: &dyn Collective,
        count: usize,
        progress: impl Fn(usize, usize),
    ) -> Result<Drawn, Failure> {
        let mut ours = Drawn::default();
        self.run(comm, count, progress, |_, batch| {
            ours.samples.extend(batch.samples);
            ours.trajectories.extend(batch.trajectories);
            Ok(())
        })?;
        Ok(Drawn { samples: gather(comm, ours.samples), trajectories: gather(comm, ours.trajectories) })
    }

    fn draw(
        &self,
        weights: &Weights,
        batch: Range<usize>,
        report_step: &mut impl FnMut(usize),
        take: &mut impl FnMut(Range<usize>, Drawn) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let kept = self.trajectories.clamp(batch.start, batch.end) - batch.start;
        let mut states = Vec::new();
        let images = self.draw_batch(weights, batch.clone(), |step| {
            report_step(batch.len());
            if kept > 0 {
                // Copied, because a view would keep the whole batch in memory.
                states.push(step.x.narrow(0, 0, kept as i64).copy());
            }
        })?;
        // As a picture they would be black, without any hint at the cause.
        finite::check_images(&images, batch.start, &format!("images drawn from {}", self.name))?;
        let trajectories = if kept > 0 { floats(&Tensor::stack(&states, 1))? } else { Vec::new() };
        take(batch, Drawn { samples: floats(&images)?, trajectories })
    }

    fn draw_batch(&self, weights: &Weights, batch: Range<usize>, observe: impl FnMut(Step)) -> Result<Tensor, Error> {
        let device = weights.flat().device();
        let indices: Vec<u64> = batch.clone().map(|i| i as u64).collect();
        let noise = match self.init_noise {
            Some(noise) => noise.narrow(0, batch.start as i64, batch.len() as i64),
            None => noise_batch(self.seed, Stream::Sample, &indices, &self.network.image().sizes()),
        };
        let labels = self.labels.map(|labels| Tensor::from_slice(&labels[batch]).to_device(device));
        let pull = self.guided.classifier.zip(labels.as_ref());
        let pull = pull.map(|((by, scale), labels)| move |x: &Tensor, t: &Tensor| by.gradient(x, t, labels, scale));
        let options = SampleOptions {
            sampler: self.sampler,
            corrector: self.corrector,
            clip: self.clip,
            seed: self.seed,
            indices: &indices,
            classifier: pull.as_ref().map(|pull| ClassGradient(pull)),
        };
        // With a classifier there may be labels even though the network is not conditioned on classes.
        let network_labels = labels.as_ref().filter(|_| self.network.classes().is_some());
        let model = |x: &Tensor, t: &Tensor| self.predict(weights, x, t, network_labels);
        Ok(self.process.sample(&options, noise.to_device(device), model, observe)?)
    }

    /// The network's output, guided if requested.
    fn predict(
        &self,
        weights: &Weights,
        x: &Tensor,
        t: &Tensor,
        labels: Option<&Tensor>,
    ) -> Result<Tensor, ModelError> {
        let forward = |x: &Tensor, t: &Tensor, labels: Option<&Tensor>| {
            self.network.forward(weights, &Inputs { x, t, labels, dropout: None })
        };
        match &self.guided.guidance {
            Some(guidance) => guidance.predict(self.process, (x, t), labels, forward),
            None => Ok(forward(x, t, labels)?),
        }
    }
}

/// Gathers the floats of all ranks, in rank order, on rank 0; the other ranks receive none.
pub fn gather(comm: &dyn Collective, ours: Vec<f32>) -> Vec<f32> {
    if comm.size() == 1 {
        return ours;
    }
    let bytes = ours.iter().flat_map(|value| value.to_le_bytes()).collect();
    drop(ours);
    let ranks = comm.gather_bytes_to(bytes, 0);
    ranks.iter().flat_map(|rank| rank.as_chunks::<4>().0).map(|value| f32::from_le_bytes(*value)).collect()
}
