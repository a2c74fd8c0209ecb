//! Pictures made of images: sample grids and the strip of the forward process.

use ddpm_data::Source;
use ddpm_diffusion::{Diffusion, Stream, noise_batch};
use tch::{Kind, Tensor};

use crate::failure::Failure;
use crate::telemetry::{self, Picture, Scale};

/// Rows of the forward strip: images of the data set.
const STRIP_IMAGES: usize = 4;
/// Columns of the forward strip: timesteps from 0 to T-1.
const STRIP_TIMES: usize = 10;

/// Images f32 `[N, C, size, size]` in `[-1, 1]` in a grid.
pub fn grid(images: &[f32], channels: usize, size: usize, columns: usize) -> Result<Picture, Failure> {
    grid_u8(&telemetry::from_unit_floats(images), channels, size, columns)
}

/// Images u8 `[N, C, size, size]` in a grid.
pub fn grid_u8(images: &[u8], channels: usize, size: usize, columns: usize) -> Result<Picture, Failure> {
    let count = images.len() / (channels * size * size);
    telemetry::grid(images, [count, channels, size, size], columns, Scale::Legible).map_err(Failure::internal)
}

/// One image u8 `[C, size, size]`, pixel for pixel.
pub fn single(image: &[u8], channels: usize, size: usize) -> Result<Picture, Failure> {
    telemetry::grid(image, [1, channels, size, size], 1, Scale::Exact).map_err(Failure::internal)
}

/// The first images of a data set on their way to noise: a row per image, x_t from t = 0 to T-1.
pub fn forward_strip(source: &dyn Source, diffusion: &Diffusion, seed: u64) -> Result<Picture, Failure> {
    let spec = source.spec();
    let count = STRIP_IMAGES.min(source.len() as usize);
    let shape = [spec.channels as i64, spec.size as i64, spec.size as i64];
    let images = ddpm_data::preview(source, 0, count)?.images;
    let device = diffusion.device();
    let x_start = Tensor::from_slice(&images).to_device(device).view([count as i64, shape[0], shape[1], shape[2]]);
    let x_start = x_start.to_kind(Kind::Float) / 127.5 - 1.0;
    let positions: Vec<u64> = (0..count as u64).collect();
    let noise = noise_batch(seed, Stream::Noise, &positions, &shape).to_device(device);
    let last = diffusion.timesteps() - 1;
    let states: Vec<Tensor> = (0..STRIP_TIMES)
        .map(|column| {
            let t = (column * last / (STRIP_TIMES - 1)) as i64;
            diffusion.q_sample(&x_start, &Tensor::full([count as i64], t, (Kind::Int64, device)), &noise)
        })
        .collect();
    let strip = Tensor::stack(&states, 1).to_kind(Kind::Float).contiguous().view(-1);
    grid(&Vec::<f32>::try_from(&strip)?, spec.channels, spec.size, STRIP_TIMES)
}
