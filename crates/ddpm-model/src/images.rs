//! Images of a data set as a network takes them.

use ddpm_data::{Batch, Source};
use tch::{Device, Kind, TchError, Tensor};

use crate::error::Error;

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
pub fn read(source: &dyn Source, first: u64, count: usize, device: Device) -> Result<Images, Error> {
    of_batch(source, ddpm_data::preview(source, first, count)?, device)
}

/// The images of a batch of `source`.
pub fn of_batch(source: &dyn Source, batch: Batch, device: Device) -> Result<Images, Error> {
    let [channels, height, width] = source.image().sizes();
    let shape = [batch.labels.len() as i64, channels, height, width];
    Ok(Images { x_start: from_bytes(&batch.images, shape, device)?, labels: batch.labels })
}

/// `tensor` on `device`, as far as the next operations there see; the host need not wait for the copy.
pub fn upload(tensor: &Tensor, device: Device) -> Result<Tensor, TchError> {
    tensor.f_to_device_(device, tensor.kind(), true, false)
}

/// A tensor's numbers as f32, in row-major order.
pub fn floats(tensor: &Tensor) -> Result<Vec<f32>, Error> {
    Ok(Vec::try_from(&tensor.to_kind(Kind::Float).contiguous().view(-1))?)
}
