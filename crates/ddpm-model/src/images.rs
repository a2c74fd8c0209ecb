//! Converts images of a data set to the input of a network.

use ddpm_data::{Batch, Source};
use tch::{Device, Kind, TchError, Tensor};

use crate::error::Error;

/// A number of images of a data set.
pub struct Images {
    /// f32 `[N, C, H, W]`, with the 256 levels mapped to `[-1, 1]`.
    pub x_start: Tensor,
    /// The class of each image; -1 if it has none.
    pub labels: Vec<i64>,
}

/// Converts bytes u8 `[N, C, H, W]` to the input of a network: f32, with the 256 levels mapped to `[-1, 1]`.
pub fn from_bytes(bytes: &[u8], shape: [i64; 4], device: Device) -> Result<Tensor, TchError> {
    from_levels(&upload(&Tensor::f_from_slice(bytes)?, device)?.f_view(shape)?)
}

/// The same of a tensor u8 `[N, C, H, W]`, on its device.
pub fn from_levels(levels: &Tensor) -> Result<Tensor, TchError> {
    levels.f_to_kind(Kind::Float)?.f_div_scalar(127.5)?.f_sub_scalar(1.0)
}

/// Reads `count` images in the order of their ids, starting with id `first`. An unusable image is replaced as in
/// training if `data.on_corrupt` says so.
pub fn read(source: &dyn Source, first: u64, count: usize, device: Device) -> Result<Images, Error> {
    of_batch(source, ddpm_data::preview(source, first, count)?, device)
}

/// The images of a batch of `source`.
pub fn of_batch(source: &dyn Source, batch: Batch, device: Device) -> Result<Images, Error> {
    let [channels, height, width] = source.image().sizes();
    let shape = [batch.labels.len() as i64, channels, height, width];
    Ok(Images { x_start: from_bytes(&batch.images, shape, device)?, labels: batch.labels })
}

/// Copies `tensor` to `device` asynchronously: later operations on the device see the copy, but the host does not
/// wait for it.
pub fn upload(tensor: &Tensor, device: Device) -> Result<Tensor, TchError> {
    tensor.f_to_device_(device, tensor.kind(), true, false)
}

/// The values of a tensor as f32, in row-major order.
pub fn floats(tensor: &Tensor) -> Result<Vec<f32>, Error> {
    Ok(Vec::try_from(&tensor.to_kind(Kind::Float).contiguous().view(-1))?)
}
