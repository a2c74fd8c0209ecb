//! Converts images of a data set to the input of a network.

use ddpm_data::{Depth, Source};
use tch::{Device, Kind, TchError, Tensor};

use crate::error::Error;

/// A number of images of a data set.
pub struct Images {
    /// f32 `[N, C, H, W]` in `[-1, 1]`.
    pub x_start: Tensor,
    /// The class of each image; -1 if it has none.
    pub labels: Vec<i64>,
}

/// Converts values `[N, C, H, W]`, stored as a data set stores them, to the input of a network.
pub fn from_values(values: &[u8], depth: Depth, shape: [i64; 4], device: Device) -> Result<Tensor, TchError> {
    let kind = match depth {
        Depth::Byte => Kind::Uint8,
        Depth::Float => Kind::Float,
    };
    from_levels(&upload(&Tensor::f_from_data_size(values, &shape, kind)?, device)?)
}

/// The input of a network, f32 in `[-1, 1]`, from a tensor `[N, C, H, W]` on its device: of f32 that are that already,
/// or of u8, whose 256 levels are mapped to it.
pub fn from_levels(levels: &Tensor) -> Result<Tensor, TchError> {
    match levels.kind() {
        Kind::Float => Ok(levels.shallow_clone()),
        _ => levels.f_to_kind(Kind::Float)?.f_div_scalar(127.5)?.f_sub_scalar(1.0),
    }
}

/// Reads `count` images in the order of their ids, starting with id `first`, on as many threads as libtorch has. An
/// unusable image is replaced as in training if `data.on_corrupt` says so.
pub fn read(source: &dyn Source, first: u64, count: usize, device: Device) -> Result<Images, Error> {
    let threads = tch::get_num_threads().max(1) as usize;
    let batch = ddpm_data::preview(source, first, count, threads)?;
    let [channels, height, width] = source.image().sizes();
    let shape = [batch.labels.len() as i64, channels, height, width];
    let x_start = from_values(&batch.images, source.depth(), shape, device)?;
    Ok(Images { x_start, labels: batch.labels })
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
