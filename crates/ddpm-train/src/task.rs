//! The fixed part of training: the network, the diffusion process, the objective, and how a batch is split.

use ddpm_config::Settings;
use ddpm_data::Batch;
use ddpm_diffusion::{Diffusion, Draw, Stream, uniform};
use ddpm_model::{Error, diffusion};
use ddpm_nn::{DropoutKeys, LrSchedule, Network};
use tch::{Device, Kind, TchError, Tensor};

use crate::build;
use crate::objective::Objective;

/// The network, the diffusion process, the objective, and the settings that a step needs.
pub struct Task {
    /// The network.
    pub network: Network,
    /// The diffusion process that adds noise to the images.
    pub diffusion: Diffusion,
    /// The training objective.
    pub objective: Objective,
    /// Key of all random numbers.
    pub seed: u64,
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
    dropout: bool,
}

/// The images of one forward pass, with the labels, positions and draws of each.
pub struct MicroBatch<'a> {
    /// u8 `[b, C, H, W]`.
    pub pixels: &'a [u8],
    /// The class of each image; -1 if it has none.
    pub labels: &'a [i64],
    /// Each sample's index in the run.
    pub positions: &'a [u64],
    /// Each sample's timestep and the weight of its loss.
    pub draws: &'a [Draw],
}

impl Task {
    /// The task that `settings` describe, on `device`; the network computes in `precision`.
    pub fn of(settings: &Settings, device: Device, precision: Kind) -> Result<Self, Error> {
        let network = Network::new(settings.architecture())?
            .computing_in(precision)
            .checkpointing(&settings.model.checkpoint_activations);
        Ok(Self {
            objective: Objective::of(settings),
            diffusion: diffusion(settings, device)?,
            network,
            seed: settings.seed,
            global_batch: settings.train.global_batch,
            micro_batch: settings.train.micro_batch.unwrap_or(usize::MAX),
            image: settings.data.image().sizes(),
            lr: build::lr_schedule(settings),
            grad_clip: settings.train.grad_clip,
            skip_nonfinite: settings.train.skip_nonfinite,
            ema_every: settings.ema.every,
            dropout: settings.model.dropout > 0.0,
        })
    }

    /// Splits this rank's slice into micro-batches of equal size.
    pub fn micro_batches<'a>(
        &self,
        batch: &'a Batch,
        positions: &'a [u64],
        draws: &'a [Draw],
    ) -> impl ExactSizeIterator<Item = MicroBatch<'a>> {
        let image = self.image.iter().product::<i64>() as usize;
        let size = self.micro_batch.clamp(1, draws.len().max(1));
        let parts = batch.images.chunks(size * image).zip(batch.labels.chunks(size));
        parts
            .zip(positions.chunks(size).zip(draws.chunks(size)))
            .map(|((pixels, labels), (positions, draws))| MicroBatch { pixels, labels, positions, draws })
    }

    /// Keys of the dropout masks of the samples at `positions`, on `device`, if the network uses dropout.
    pub fn dropout_keys(&self, positions: &[u64], device: Device) -> Result<Option<DropoutKeys>, TchError> {
        if !self.dropout {
            return Ok(None);
        }
        // 53 bits of a draw are plenty to distinguish samples.
        let key = |&position: &u64| (uniform(self.seed, Stream::Dropout, position) * (1u64 << 53) as f64) as i64;
        let keys = Tensor::f_from_slice(&positions.iter().map(key).collect::<Vec<_>>())?;
        Ok(Some(DropoutKeys::new(ddpm_model::images::upload(&keys, device)?)))
    }
}
