//! Pictures composed of images: sample grids, and strips that show the forward and the reverse process.

use ddpm_data::{ImageShape, Source};
use ddpm_diffusion::{Diffusion, Stream, noise_batch};
use ddpm_telemetry::{Picture, Scale};
use tch::{Kind, Tensor};

use crate::error::Error;
use crate::images;

/// Number of images in a strip, one per row.
pub const STRIP_IMAGES: usize = 4;
/// Number of timesteps in a strip, one per column.
const STRIP_TIMES: usize = 10;

/// A grid of images f32 `[N, C, H, W]` in `[-1, 1]`, of the shape `image`.
pub fn grid(images: &[f32], image: ImageShape, columns: usize) -> Result<Picture, Error> {
    grid_u8(&ddpm_telemetry::from_unit_floats(images), image, columns)
}

/// A grid of images u8 `[N, C, H, W]`, of the shape `image`.
pub fn grid_u8(images: &[u8], image: ImageShape, columns: usize) -> Result<Picture, Error> {
    let ImageShape { channels, height, width } = image;
    let count = images.len() / image.values();
    Ok(ddpm_telemetry::grid(images, [count, channels, height, width], columns, Scale::Legible)?)
}

/// One image u8 `[C, H, W]`, of the shape `image`, pixel for pixel.
pub fn single(pixels: &[u8], image: ImageShape) -> Result<Picture, Error> {
    let ImageShape { channels, height, width } = image;
    Ok(ddpm_telemetry::grid(pixels, [1, channels, height, width], 1, Scale::Exact)?)
}

/// The forward process on the first images of a data set: one row per image, with x_t from t = 0 to T-1.
pub fn forward_strip(source: &dyn Source, diffusion: &Diffusion, seed: u64) -> Result<Picture, Error> {
    let image = source.image();
    let count = STRIP_IMAGES.min(source.len() as usize);
    let device = diffusion.device();
    let x_start = images::read(source, 0, count, device)?.x_start;
    let positions: Vec<u64> = (0..count as u64).collect();
    let noise = noise_batch(seed, Stream::Picture, &positions, &image.sizes()).to_device(device);
    let last = diffusion.timesteps() - 1;
    let states: Vec<Tensor> = (0..STRIP_TIMES)
        .map(|column| {
            let t = diffusion.full_t(column * last / (STRIP_TIMES - 1), count as i64);
            diffusion.q_sample(&x_start, &t, &noise)
        })
        .collect();
    let strip = Tensor::stack(&states, 1).to_kind(Kind::Float).contiguous().view(-1);
    grid(&Vec::<f32>::try_from(&strip)?, image, STRIP_TIMES)
}

/// The reverse process from noise to images: one row per image of `trajectories` f32 `[rows, steps, C, H, W]`.
pub fn reverse_strip(trajectories: &[f32], steps: usize, image: ImageShape) -> Result<Picture, Error> {
    let columns = STRIP_TIMES.min(steps);
    let values = image.values();
    let shown = |column: usize| (column * (steps - 1)).checked_div(columns - 1).unwrap_or(0);
    let strip: Vec<f32> = trajectories
        .chunks_exact(steps * values)
        .flat_map(|states| (0..columns).map(move |column| &states[shown(column) * values..][..values]))
        .flatten()
        .copied()
        .collect();
    grid(&strip, image, columns)
}
