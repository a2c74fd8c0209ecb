//! One rank's part of one step: noise its slice of the global batch, apply the objective, and go backward.

use ddpm_config::Settings;
use ddpm_data::Batch;
use ddpm_diffusion::{Diffusion, Draw, Stream, noise_batch, uniform};
use ddpm_nn::{DropoutKeys, Network};
use tch::{Device, Kind, TchError, Tensor};
use tch_ext::in_range;

use super::average::GradientAverage;
use super::objective::{Noised, Objective, Terms};
use super::state::TrainState;
use crate::assemble;
use crate::device::upload;
use crate::failure::Failure;
use crate::images;

/// What is learned and how a batch is turned into a gradient: all that stays the same from step to step.
pub struct Task {
    /// The network.
    pub network: Network,
    /// The process that noises what it sees.
    pub diffusion: Diffusion,
    /// What it learns about that.
    pub objective: Objective,
    /// Key of all randomness.
    pub seed: u64,
    /// Images per forward pass.
    pub micro_batch: usize,
    /// Shape of one image, `[C, H, W]`.
    pub image: [i64; 3],
    /// Whether the network drops activations.
    pub dropout: bool,
}

/// What one sample contributed, kept until somebody asks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleTerms {
    /// Its timestep.
    pub t: usize,
    /// The weight of its loss in the mean (1 for uniform timesteps).
    pub weight: f64,
    /// Its loss before that weight.
    pub loss: f32,
    /// Squared error of the prediction; not a number of a classifier.
    pub mse: f32,
    /// Its term of the bound, in bits per dimension; not a number of a classifier.
    pub vb: f32,
    /// 1 if a classifier told its class, else 0; not a number of a diffusion model.
    pub correct: f32,
}

impl Task {
    /// The task that `settings` set, on `device`; the network computes in `precision`.
    pub fn of(settings: &Settings, device: Device, precision: Kind) -> Result<Self, Failure> {
        let network = Network::new(settings.architecture())?
            .computing_in(precision)
            .checkpointing(&settings.model.checkpoint_activations);
        Ok(Self {
            objective: Objective::of(settings),
            diffusion: assemble::diffusion(settings, device)?,
            network,
            seed: settings.seed,
            micro_batch: settings.train.micro_batch.unwrap_or(usize::MAX),
            image: settings.data.image().sizes(),
            dropout: settings.model.dropout > 0.0,
        })
    }

    /// This rank's share of the gradients of the mean loss over the global batch, left in `state.gradients`; the terms of
    /// the samples in its slice, in order. The last micro-batch begins the gradients' `average` over the ranks.
    ///
    /// The terms are on the device still: [`PendingTerms::read`] waits for it.
    pub fn forward_backward(
        &self,
        state: &mut TrainState,
        batch: &Batch,
        average: &mut GradientAverage,
    ) -> Result<PendingTerms, Failure> {
        state.gradients.clear()?;
        let count = batch.labels.len();
        let positions: Vec<u64> = (0..count as u64).map(|i| batch.first_position + i).collect();
        let draws = state.sampler.draw(self.seed, &positions);
        let mut pending = PendingTerms { draws, parts: Vec::new() };
        let size = self.micro_batch.min(count);
        let passes = count.div_ceil(size);
        for start in (0..count).step_by(size) {
            let range = start..(start + size).min(count);
            let draws = &pending.draws[range.clone()];
            let forward = || self.micro_step(state, batch, range.clone(), &positions[range.clone()], draws);
            let terms = in_range(c"forward", forward)?;
            // The mean over the global batch is that over its equal slices, and theirs over equal micro-batches.
            let loss = weighted_mean(&terms, draws)?.f_div_scalar((passes * average.ranks()) as f64)?;
            if pending.parts.len() + 1 == passes {
                average.begin();
            }
            in_range(c"backward", || loss.f_backward())?;
            let absent = terms.loss.f_full_like(f64::NAN)?;
            let row = |term: Option<Tensor>| term.as_ref().unwrap_or(&absent).detach();
            let rows = [terms.loss.detach(), row(terms.mse), row(terms.vb), row(terms.correct)];
            pending.parts.push(Tensor::f_stack(&rows, 0)?);
        }
        Ok(pending)
    }

    /// What the samples `range` of the batch contribute; the graph of `loss` holds what its backward needs.
    pub(super) fn micro_step(
        &self,
        state: &TrainState,
        batch: &Batch,
        range: std::ops::Range<usize>,
        positions: &[u64],
        draws: &[Draw],
    ) -> Result<Terms, Failure> {
        let device = state.weights.flat().device();
        let [channels, height, width] = self.image;
        let bytes = (channels * height * width) as usize;
        let count = range.len() as i64;
        let pixels = &batch.images[range.start * bytes..range.end * bytes];
        let x_start = images::from_bytes(pixels, [count, channels, height, width], device)?;
        let noise = in_range(c"noise", || noise_batch(self.seed, Stream::Noise, positions, &self.image));
        let noise = upload(&noise, device)?;
        let t: Vec<i64> = draws.iter().map(|draw| draw.t as i64).collect();
        let t = upload(&Tensor::f_from_slice(&t)?, device)?;
        let x_t = self.diffusion.q_sample(&x_start, &t, &noise);
        let keys = self.dropout.then(|| upload(&self.dropout_keys(positions), device)).transpose()?;
        let dropout = keys.map(DropoutKeys::new);
        let noised = Noised { positions, labels: &batch.labels[range], x_start, noise, t, x_t, dropout };
        self.objective.terms(&self.network, &state.weights, &self.diffusion, self.seed, &noised)
    }

    fn dropout_keys(&self, positions: &[u64]) -> Tensor {
        // 53 bits of a draw are plenty to tell samples apart.
        let key = |&position: &u64| (uniform(self.seed, Stream::Dropout, position) * (1u64 << 53) as f64) as i64;
        Tensor::from_slice(&positions.iter().map(key).collect::<Vec<_>>())
    }
}

/// The loss of a micro-batch.
pub(super) fn weighted_mean(terms: &Terms, draws: &[Draw]) -> Result<Tensor, TchError> {
    let weights: Vec<f32> = draws.iter().map(|draw| draw.weight as f32).collect();
    let weights = upload(&Tensor::f_from_slice(&weights)?, terms.loss.device())?;
    terms.loss.f_mul(&weights)?.f_mean(Kind::Float)
}

/// A slice's terms, not yet read from the device.
pub struct PendingTerms {
    draws: Vec<Draw>,
    /// Rows loss, mse, vb, correct per micro-batch, `[4, b]`; what the objective lacks is not a number.
    parts: Vec<Tensor>,
}

impl PendingTerms {
    /// Waits for the device and gives the terms in slot order.
    pub fn read(self) -> Result<Vec<SampleTerms>, Failure> {
        let rows = Tensor::f_cat(&self.parts, 1)?.f_to_kind(Kind::Float)?.f_contiguous()?.f_view(-1)?;
        let rows: Vec<f32> = Vec::try_from(&rows)?;
        let count = self.draws.len();
        let term = |(i, draw): (usize, &Draw)| {
            let [loss, mse, vb, correct] = [0, 1, 2, 3].map(|row| rows[row * count + i]);
            SampleTerms { t: draw.t, weight: draw.weight, loss, mse, vb, correct }
        };
        Ok(self.draws.iter().enumerate().map(term).collect())
    }
}
