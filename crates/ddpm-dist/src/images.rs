//! Images of a data set as a network takes them.

use std::sync::Arc;

use ddpm_data::{Batch, Source};
use tch::{Device, Kind, TchError, Tensor};

use crate::cli::DataArgs;
use crate::device::upload;
use crate::failure::Failure;
use crate::source::Model;

/// Some images of a data set.
pub struct Images {
    /// f32 `[N, C, H, W]`, the 256 grey levels in `[-1, 1]`.
    pub x_start: Tensor,
    /// The class of each, -1 where it has none.
    pub labels: Vec<i64>,
}

/// Bytes u8 `[N, C, H, W]` as a network takes them: f32, the 256 grey levels in `[-1, 1]`.
pub fn from_bytes(bytes: &[u8], shape: [i64; 4], device: Device) -> Result<Tensor, TchError> {
    let levels = upload(&Tensor::f_from_slice(bytes)?, device)?.f_view(shape)?.f_to_kind(Kind::Float)?;
    levels.f_div_scalar(127.5)?.f_sub_scalar(1.0)
}

/// Reads `count` images from id `first` on, in the order of their ids; one that cannot be used is replaced as in training,
/// where `data.on_corrupt` says so.
pub fn read(source: &dyn Source, first: u64, count: usize, device: Device) -> Result<Images, Failure> {
    of_batch(source, ddpm_data::preview(source, first, count)?, device)
}

/// The images of a batch of `source`.
pub fn of_batch(source: &dyn Source, batch: Batch, device: Device) -> Result<Images, Failure> {
    let [channels, height, width] = source.image().sizes();
    let shape = [batch.labels.len() as i64, channels, height, width];
    Ok(Images { x_start: from_bytes(&batch.images, shape, device)?, labels: batch.labels })
}

/// Opens the images that a command works on with a model; refuses a set of fewer than `count`.
pub fn open(model: &Model, args: &DataArgs, count: usize) -> Result<Arc<dyn Source>, Failure> {
    let settings = model.data_settings(args.data.as_deref(), &args.overrides)?;
    let source = model.open_data(&settings, args.split.into())?;
    check_count(source.as_ref(), count as u64)?;
    Ok(source)
}

/// Refuses to take more images than there are.
pub fn check_count(source: &dyn Source, count: u64) -> Result<(), Failure> {
    let available = source.len();
    if count <= available {
        return Ok(());
    }
    Err(Failure::usage(format!("-n asks for {count} images of {}; give at most {available}", source.describe())))
}
