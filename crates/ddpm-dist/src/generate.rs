//! Drawing images from a network, every rank its share: image i depends on (seed, i) only.

use ddpm_checkpoint::share;
use ddpm_comm::Collective;
use ddpm_diffusion::{ClassGradient, Clip, Diffusion, SampleOptions, Sampler, Step, Stream, noise_batch};
use ddpm_nn::{Inputs, Network, Weights};
use tch::{Kind, Tensor};

use crate::classifier::Classifier;
use crate::coordinator::unanimous;
use crate::failure::Failure;

/// What to draw, and how.
pub struct Generation<'a> {
    /// The network.
    pub network: &'a Network,
    /// Its numbers.
    pub weights: &'a Weights,
    /// The process, respaced to the steps to take.
    pub process: &'a Diffusion,
    /// The update rule.
    pub sampler: Sampler,
    /// What is done to each predicted image.
    pub clip: Clip,
    /// Key of the noise.
    pub seed: u64,
    /// The class of each image, for a class-conditional network or a classifier; one entry per image.
    pub labels: Option<&'a [i64]>,
    /// A classifier that guides each image to its class, and the scale of its gradient.
    pub classifier: Option<(&'a Classifier, f64)>,
    /// Classifier-free guidance: its scale, and the row of the class table that means "no class".
    pub guidance: Option<(f64, i64)>,
    /// Initial noise `[N, C, H, W]` instead of drawn noise.
    pub init_noise: Option<&'a Tensor>,
    /// Images per forward pass.
    pub batch: usize,
    /// Whether to keep the images after every step.
    pub trajectory: bool,
}

/// Images drawn, on every rank, in order of their indices.
pub struct Generated {
    /// f32 `[N, C, H, W]` in `[-1, 1]`, not clamped.
    pub samples: Vec<f32>,
    /// f32 `[N, steps, C, H, W]`, if asked for.
    pub trajectory: Vec<f32>,
}

impl Generation<'_> {
    /// Draws images `0..count`, spread over the ranks; `progress` is told of each step of this rank's share.
    pub fn run(
        &self,
        comm: &dyn Collective,
        count: usize,
        progress: impl Fn(usize, usize),
    ) -> Result<Generated, Failure> {
        let ours = share(count, comm.rank(), comm.size());
        let drawn = unanimous(comm, self.draw(ours, &progress))?;
        Ok(Generated { samples: gather(comm, &drawn.samples), trajectory: gather(comm, &drawn.trajectory) })
    }

    fn draw(&self, range: std::ops::Range<usize>, progress: &impl Fn(usize, usize)) -> Result<Generated, Failure> {
        let mut drawn = Generated { samples: Vec::new(), trajectory: Vec::new() };
        let total = range.len().div_ceil(self.batch) * self.process.timesteps();
        let mut done = 0;
        for start in range.clone().step_by(self.batch) {
            let batch = start..(start + self.batch).min(range.end);
            let mut states = Vec::new();
            let images = self.draw_batch(batch, |step| {
                done += 1;
                progress(done, total);
                if self.trajectory {
                    states.push(step.x.shallow_clone());
                }
            })?;
            drawn.samples.extend(floats(&images)?);
            if self.trajectory {
                drawn.trajectory.extend(floats(&Tensor::stack(&states, 1))?);
            }
        }
        Ok(drawn)
    }

    fn draw_batch(&self, batch: std::ops::Range<usize>, observe: impl FnMut(Step)) -> Result<Tensor, Failure> {
        let device = self.weights.flat().device();
        let (channels, size) = self.network.image();
        let indices: Vec<u64> = batch.clone().map(|i| i as u64).collect();
        let noise = match self.init_noise {
            Some(noise) => noise.narrow(0, batch.start as i64, batch.len() as i64),
            None => noise_batch(self.seed, Stream::Sample, &indices, &[channels, size, size]),
        };
        let labels = self.labels.map(|labels| Tensor::from_slice(&labels[batch]).to_device(device));
        let predict = |x: &Tensor, t: &Tensor, labels: Option<&Tensor>| {
            self.network.forward(self.weights, &Inputs { x, t, labels, dropout: None })
        };
        // A classifier may know of classes what the network does not.
        let told = labels.as_ref().filter(|_| self.network.classes().is_some());
        let model = |x: &Tensor, t: &Tensor| {
            let conditional = predict(x, t, told);
            match (self.guidance, told) {
                (Some((scale, null)), Some(labels)) if scale != 1.0 => {
                    let unconditional = predict(x, t, Some(&labels.full_like(null)));
                    Ok(self.process.guide(&conditional, &unconditional, scale)?)
                }
                _ => Ok(conditional),
            }
        };
        let pull = self.classifier.zip(labels.as_ref());
        let pull = pull.map(|((by, scale), labels)| move |x: &Tensor, t: &Tensor| by.gradient(x, t, labels, scale));
        let options = SampleOptions {
            sampler: self.sampler,
            clip: self.clip,
            seed: self.seed,
            indices: &indices,
            classifier: pull.as_ref().map(|pull| ClassGradient(pull)),
        };
        Ok(self.process.sample(&options, noise.to_device(device), model, observe)?)
    }
}

fn floats(tensor: &Tensor) -> Result<Vec<f32>, Failure> {
    Ok(Vec::try_from(&tensor.to_kind(Kind::Float).contiguous().view(-1))?)
}

/// All ranks' floats, in rank order.
fn gather(comm: &dyn Collective, ours: &[f32]) -> Vec<f32> {
    let bytes: Vec<u8> = ours.iter().flat_map(|value| value.to_le_bytes()).collect();
    let ranks = comm.gather_bytes(&bytes);
    ranks.iter().flat_map(|rank| rank.as_chunks::<4>().0).map(|value| f32::from_le_bytes(*value)).collect()
}
