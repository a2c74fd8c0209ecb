//! The images of a data set in a random order, batch after batch, as input for a network.

use std::sync::Arc;

use ddpm_data::{Depth, Loader, LoaderConfig, Order, Source};
use tch::{Device, Tensor};

use crate::error::Error;
use crate::images;

/// Batches decoded ahead.
const PREFETCH: usize = 2;

/// The images of a data set in an order that depends on a seed only, with one batch in memory as tensors.
pub struct ShuffledImages {
    loader: Loader,
    shape: [i64; 3],
    depth: Depth,
    device: Device,
    current: Option<(usize, ImageBatch)>,
}

/// A batch of images.
pub struct ImageBatch {
    /// The images' ids in the data set.
    pub ids: Vec<u64>,
    /// f32 `[B, C, H, W]` in `[-1, 1]`.
    pub x_start: Tensor,
    /// i64 `[B]`; -1 for an image without a label.
    pub labels: Tensor,
}

impl ShuffledImages {
    /// Batches of `batch` images of `source`, decoded by `workers` threads, on `device`.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn new(
        source: &Arc<dyn Source>,
        seed: u64,
        batch: usize,
        workers: usize,
        device: Device,
    ) -> Result<Self, Error> {
        let config = LoaderConfig {
            global_batch: batch,
            slice: 0..batch,
            start_step: 0,
            workers,
            prefetch: PREFETCH,
            flip: false,
            flip_seed: 0,
        };
        let loader = Loader::new(Arc::clone(source), Order::new(source.len(), seed), config, ())?;
        Ok(Self { loader, shape: source.image().sizes(), depth: source.depth(), device, current: None })
    }

    /// The first `count` images of batch `number`; successive calls never ask for a lower number.
    ///
    /// # Errors
    /// If an image cannot be read, or the device has no memory for the batch.
    pub fn batch(&mut self, number: usize, count: usize) -> Result<&ImageBatch, Error> {
        let kept = self.current.take().filter(|(kept, _)| *kept == number);
        let batch = match kept {
            Some((_, batch)) => batch,
            None => self.read(number, count)?,
        };
        Ok(&self.current.insert((number, batch)).1)
    }

    fn read(&self, number: usize, count: usize) -> Result<ImageBatch, Error> {
        // Batches that only other ranks need are passed over.
        let batch = loop {
            let batch = self.loader.next()?;
            if batch.step == number as u64 {
                break batch;
            }
            self.loader.recycle(batch);
        };
        let [channels, height, width] = self.shape;
        let bytes = (channels * height * width) as usize * self.depth.bytes();
        let shape = [count as i64, channels, height, width];
        Ok(ImageBatch {
            ids: batch.ids[..count].to_vec(),
            x_start: images::from_values(&batch.images[..count * bytes], self.depth, shape, self.device)?,
            labels: Tensor::from_slice(&batch.labels[..count]).to_device(self.device),
        })
    }
}
