//! Images of a data set as a network takes them.

use std::sync::Arc;

use ddpm_data::Source;
use tch::{Device, Kind, Tensor};

use crate::cli::DataArgs;
use crate::failure::Failure;
use crate::source::Model;

/// Some images of a data set.
pub struct Images {
    /// f32 `[N, C, H, W]`, the 256 grey levels in `[-1, 1]`.
    pub x_start: Tensor,
    /// The class of each, -1 where it has none.
    pub labels: Vec<i64>,
}

/// Reads `count` images from id `first` on, in the order of their ids.
pub fn read(source: &dyn Source, first: u64, count: usize, device: Device) -> Result<Images, Failure> {
    let batch = ddpm_data::preview(source, first, count)?;
    let [channels, size] = [source.spec().channels, source.spec().size].map(|n| n as i64);
    let pixels = Tensor::from_slice(&batch.images).to_device(device).view([count as i64, channels, size, size]);
    Ok(Images { x_start: pixels.to_kind(Kind::Float) / 127.5 - 1.0, labels: batch.labels })
}

/// Opens the images that a command works on with a model; refuses a set of fewer than `count`.
pub fn open(model: &Model, args: &DataArgs, count: usize) -> Result<Arc<dyn Source>, Failure> {
    let settings = model.data_settings(args.data.as_deref(), &args.overrides)?;
    let source = model.open_data(&settings, args.split.into())?;
    let available = source.len();
    if count as u64 <= available {
        return Ok(source);
    }
    Err(Failure::usage(format!("-n asks for {count} images of {}; give at most {available}", source.describe())))
}
