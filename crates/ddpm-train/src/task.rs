//! The fixed part of training: the network, the diffusion process, the objective, and how a batch is split.

use ddpm_config::Settings;
use ddpm_diffusion::{Diffusion, Draw};
use ddpm_model::{Error, diffusion};
use ddpm_nn::{DropoutKeys, LrSchedule, Network, Weights};
use tch::{Device, Kind, Tensor};

use crate::ahead::Prepared;
use crate::build;
use crate::objective::Objective;

/// Floating-point operations of training for each one of a forward pass: backward computes two products, with respect to
/// the inputs and to the weights, where forward computes one. What is computed again to save memory does not count.
const TRAINING: f64 = 3.0;

/// The network, the diffusion process, the objective, and the settings that a step needs.
pub struct Task {
    /// The network.
    pub network: Network,
    /// The diffusion process that adds noise to the images.
    pub diffusion: Diffusion,
    /// The training objective.
    pub objective: Objective,
    /// Images per step over all ranks.
    pub global_batch: usize,
    /// Images per forward pass.
    pub micro_batch: usize,
    /// Shape of one image, `[C, H, W]`.
    pub image: [i64; 3],
    /// The learning rate schedule.
    pub lr: LrSchedule,
    /// Maximum global gradient norm; 0 turns clipping off.
    pub grad_clip: f64,
    /// Number of non-finite gradients in a row that ends the run.
    pub skip_nonfinite: u32,
    /// Steps between updates of the averages.
    pub ema_every: u64,
}

/// The part of a batch for one forward pass, in host memory.
pub struct MicroBatch<'a> {
    /// `[b, C, H, W]`: u8, or f32 in `[-1, 1]`.
    pub images: Tensor,
    /// f32 `[b, C, H, W]`.
    pub noise: Tensor,
    /// The class of each image; -1 if it has none.
    pub labels: &'a [i64],
    /// Each sample's timestep and the weight of its loss.
    pub draws: &'a [Draw],
    /// Keys of the dropout masks, if the network uses dropout.
    pub dropout: Option<DropoutKeys>,
}

impl Task {
    /// Floating-point operations of training on one image.
    pub(crate) fn flops(&self, weights: &Weights) -> Result<f64, Error> {
        Ok(TRAINING * self.network.flops(weights)?)
    }

    /// The task that `settings` describe, on `device`; the network computes in `precision`.
    pub fn of(settings: &Settings, device: Device, precision: Kind) -> Result<Self, Error> {
        let network = Network::new(settings.architecture())?
            .computing_in(precision)
            .checkpointing(&settings.model.checkpoint_activations);
        Ok(Self {
            objective: Objective::of(settings),
            diffusion: diffusion(settings, device)?,
            network,
            global_batch: settings.train.global_batch,
            micro_batch: settings.train.micro_batch.unwrap_or(usize::MAX),
            image: settings.data.image().sizes(),
            lr: build::lr_schedule(settings),
            grad_clip: settings.train.grad_clip,
            skip_nonfinite: settings.train.skip_nonfinite,
            ema_every: settings.ema.every,
        })
    }

    /// The number of micro-batches of each of `ranks` ranks in a step.
    pub fn passes(&self, ranks: usize) -> usize {
        (self.global_batch / ranks).div_ceil(self.micro_batch)
    }

    /// Splits this rank's slice into micro-batches of equal size.
    pub fn micro_batches<'a>(
        &self,
        batch: &'a Prepared,
        draws: &'a [Draw],
    ) -> impl ExactSizeIterator<Item = MicroBatch<'a>> {
        let size = self.micro_batch.clamp(1, draws.len().max(1));
        let parts = batch.labels().chunks(size).zip(draws.chunks(size)).enumerate();
        parts.map(move |(i, (labels, draws))| {
            let (first, count) = ((i * size) as i64, labels.len() as i64);
            let part = |tensor: &Tensor| tensor.narrow(0, first, count);
            MicroBatch {
                images: part(batch.images()),
                noise: part(batch.noise()),
                labels,
                draws,
                dropout: batch.dropout().map(|keys| keys.narrow(first, count)),
            }
        })
    }
}
