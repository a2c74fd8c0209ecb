//! What a step needs that depends neither on the weights nor on past losses: drawn on the loader's threads, ahead of
//! the step.

use std::error::Error as StdError;

use ddpm_config::Settings;
use ddpm_data::{Batch, Depth, Prepare};
use ddpm_diffusion::{Stream, TimestepSampler, normals, uniform};
use ddpm_nn::{DropoutKeys, Network};
use tch::{Device, TchError, Tensor};
use tch_ext::{Lent, staging, with_slice_mut};

use crate::build::timestep_sampler;
use crate::objective::Objective;

/// Draws ahead, by (seed, stream, position) only: the bits do not depend on when or on which thread.
pub struct Ahead {
    seed: u64,
    image: [i64; 3],
    depth: Depth,
    device: Device,
    /// Without a history of losses; only its draws that do not depend on one are used.
    sampler: TimestepSampler,
    objective: Objective,
    dropout_layers: Option<usize>,
}

/// What was drawn for a batch of n images. Images and noise are in host memory, pinned if the step computes on a GPU.
#[derive(Default)]
pub struct Prepared {
    /// `[n, C, H, W]`: u8, or f32 in `[-1, 1]`.
    images: Option<Tensor>,
    /// Standard normal, f32 `[n, C, H, W]`.
    noise: Option<Tensor>,
    /// The draws of the timesteps, in `[0, 1)`; see [`TimestepSampler::units`].
    units: Vec<f64>,
    /// The labels that the network sees, after label dropout.
    labels: Vec<i64>,
    dropout: Option<DropoutKeys>,
}

impl Prepared {
    /// The images, `[n, C, H, W]`: u8, or f32 in `[-1, 1]`.
    pub fn images(&self) -> &Tensor {
        self.images.as_ref().expect("the loader prepares each batch")
    }

    /// The noise, f32 `[n, C, H, W]`.
    pub fn noise(&self) -> &Tensor {
        self.noise.as_ref().expect("the loader prepares each batch")
    }

    /// The draws of the timesteps, `[n]`.
    pub fn units(&self) -> &[f64] {
        &self.units
    }

    /// The labels that the network sees, `[n]`.
    pub fn labels(&self) -> &[i64] {
        &self.labels
    }

    /// Keys of the dropout masks, if the network uses dropout.
    pub fn dropout(&self) -> Option<&DropoutKeys> {
        self.dropout.as_ref()
    }
}

impl Ahead {
    /// Draws for training `network`, whose steps compute on `device`.
    pub fn of(settings: &Settings, network: &Network, device: Device) -> Self {
        Self {
            seed: settings.seed,
            image: settings.data.image().sizes(),
            depth: settings.data.depth(),
            device,
            sampler: timestep_sampler(settings),
            objective: Objective::of(settings),
            dropout_layers: (settings.model.dropout > 0.0).then(|| network.dropout_layers()),
        }
    }

    /// The bytes of a decoded image.
    pub(crate) fn image_bytes(&self) -> usize {
        self.image.iter().product::<i64>() as usize * self.depth.bytes()
    }

    /// Draws for `batch`, whose images are decoded.
    pub(crate) fn draw(&self, batch: &mut Batch<Prepared>) -> Result<(), TchError> {
        let (positions, values) = (batch.positions(), self.image.iter().product::<i64>() as usize);
        let Batch { images, labels, prepared, .. } = batch;
        let shape = [&[labels.len() as i64], &self.image[..]].concat();
        match self.depth {
            Depth::Byte => self.fill(&mut prepared.images, &shape, |bytes: &mut [u8]| bytes.copy_from_slice(images))?,
            Depth::Float => self.fill(&mut prepared.images, &shape, |floats: &mut [f32]| {
                for (float, bytes) in floats.iter_mut().zip(images.as_chunks().0) {
                    *float = f32::from_ne_bytes(*bytes);
                }
            })?,
        }
        self.fill(&mut prepared.noise, &shape, |noise: &mut [f32]| {
            for (row, position) in noise.chunks_mut(values).zip(positions.clone()) {
                normals(self.seed, Stream::Noise, position, row);
            }
        })?;
        prepared.units = self.sampler.units(self.seed, positions.clone());
        prepared.labels.clone_from(labels);
        if let Objective::Denoise { label_dropout: Some((null, rate)) } = self.objective {
            for (label, position) in prepared.labels.iter_mut().zip(positions.clone()) {
                if uniform(self.seed, Stream::LabelDropout, position) < rate {
                    *label = null;
                }
            }
        }
        if let Some(layers) = self.dropout_layers {
            // 53 bits of a draw are plenty to distinguish samples.
            let key = |position| (uniform(self.seed, Stream::Dropout, position) * (1u64 << 53) as f64) as u64;
            prepared.dropout = Some(DropoutKeys::new(&positions.map(key).collect::<Vec<_>>(), layers)?);
        }
        Ok(())
    }

    /// Fills the tensor in `place`, which is kept if it has this shape. Its values are written as a slice: operations of
    /// libtorch would start as many threads again as the step uses.
    fn fill<T: Lent>(
        &self,
        place: &mut Option<Tensor>,
        shape: &[i64],
        write: impl FnOnce(&mut [T]),
    ) -> Result<(), TchError> {
        let kept = place.take().filter(|tensor| tensor.size() == shape);
        let tensor = place.insert(match kept {
            Some(tensor) => tensor,
            None => staging(shape, T::KIND, self.device)?,
        });
        with_slice_mut(tensor, write)
    }
}

impl Prepare for Ahead {
    type Prepared = Prepared;

    fn prepare(&self, batch: &mut Batch<Prepared>) -> Result<(), Box<dyn StdError + Send + Sync>> {
        self.draw(batch).map_err(Into::into)
    }
}

/// The host memory that a batch takes ahead of its step, in bytes for each value of its images: decoded, prepared, and
/// the noise.
pub fn bytes_ahead(depth: Depth) -> usize {
    2 * depth.bytes() + size_of::<f32>()
}
