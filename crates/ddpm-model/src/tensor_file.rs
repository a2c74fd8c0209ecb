//! Safetensors files: noise to start from, samples, encoded images, weights.

use std::collections::HashMap;
use std::path::Path;

use ddpm_data::ImageShape;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use tch::Tensor;

use crate::error::Error;
use crate::finite::broken_rows;

use ddpm_telemetry::write_atomic;

/// A tensor to write: its name, shape and values.
pub struct Entry<'a> {
    name: &'a str,
    shape: Vec<usize>,
    kind: Dtype,
    bytes: Vec<u8>,
}

impl<'a> Entry<'a> {
    /// A tensor of f32.
    pub fn floats(name: &'a str, shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { name, shape: shape.to_vec(), kind: Dtype::F32, bytes }
    }

    /// Classes, i64 `[N]`.
    pub fn labels(labels: &[i64]) -> Self {
        let bytes = labels.iter().flat_map(|label| label.to_le_bytes()).collect();
        Self { name: "labels", shape: vec![labels.len()], kind: Dtype::I64, bytes }
    }
}

/// Writes these tensors to a file.
pub fn write(path: &Path, entries: &[Entry]) -> Result<(), Error> {
    write_with(path, entries, None)
}

/// Writes weights, with the note that they are laid out as PyTorch's, without which diffusers refuses them.
pub(crate) fn write_weights(path: &Path, entries: &[Entry]) -> Result<(), Error> {
    write_with(path, entries, Some(HashMap::from([("format".into(), "pt".into())])))
}

fn write_with(path: &Path, entries: &[Entry], notes: Option<HashMap<String, String>>) -> Result<(), Error> {
    let views = entries
        .iter()
        .map(|entry| Ok((entry.name, TensorView::new(entry.kind, entry.shape.clone(), &entry.bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>();
    let file = views.and_then(|views| safetensors::serialize(views, notes)).map_err(Error::internal)?;
    write_atomic(path, &file).map_err(|e| Error::file(path, e))
}

/// The shape of the images f32 `[N, C, H, W]` in tensor `name` of a file.
pub fn image_shape(path: &Path, name: &str) -> Result<ImageShape, Error> {
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
    let unfit = |what: String| {
        let path = path.display();
        Error::config(format!("{path}: {what}; give a safetensors file with finite f32 `{name}` [N, C, H, W]"))
    };
    let file = SafeTensors::deserialize(&bytes).map_err(|e| unfit(e.to_string()))?;
    match *file.tensor(name).map_err(|e| unfit(e.to_string()))?.shape() {
        [_, channels, height, width] => Ok(ImageShape { channels, height, width }),
        ref shape => Err(unfit(format!("`{name}` is {shape:?}"))),
    }
}

/// Images or noise read from a file.
pub struct Read {
    /// f32 `[N, C, H, W]`.
    pub values: Tensor,
    /// The class of each image, if the file has `labels`.
    pub labels: Option<Vec<i64>>,
}

/// Reads tensor `name` of a file, and `labels` if present. The tensor must be finite f32 `[N, C, H, W]` with N =
/// `count` (any N above 0 if `count` is `None`) and `[C, H, W]` = `image`.
pub fn read(path: &Path, name: &str, count: Option<i64>, image: [i64; 3]) -> Result<Read, Error> {
    let [channels, height, width] = image;
    let wanted = count.map_or("N".into(), |count| count.to_string());
    let unfit = |what: String| {
        Error::config(format!(
            "{}: {what}; give a safetensors file with finite f32 `{name}` [{wanted}, {channels}, {height}, {width}]",
            path.display()
        ))
    };
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| unfit(e.to_string()))?;
    let values = file.tensor(name).map_err(|e| unfit(e.to_string()))?;
    let shape: Vec<i64> = values.shape().iter().map(|n| *n as i64).collect();
    let fits = shape.len() == 4 && shape[1..] == image && count.map_or(shape[0] > 0, |count| shape[0] == count);
    if !fits || values.dtype() != Dtype::F32 {
        return Err(unfit(format!("`{name}` is {:?} {shape:?}", values.dtype())));
    }
    let labels = match file.tensor("labels") {
        Ok(labels) if labels.dtype() == Dtype::I64 && labels.shape() == [shape[0] as usize] => {
            Some(labels.data().as_chunks::<8>().0.iter().map(|label| i64::from_le_bytes(*label)).collect())
        }
        Ok(labels) => {
            let (kind, shape, count) = (labels.dtype(), labels.shape(), shape[0]);
            return Err(unfit(format!("`labels` is {kind:?} {shape:?} and should be I64 [{count}]")));
        }
        Err(_) => None,
    };
    let values = Tensor::f_from_data_size(values.data(), &shape, tch::Kind::Float)?;
    if let Some((count, first)) = broken_rows(&values) {
        return Err(unfit(format!(
            "{count} of {} images in `{name}` are not finite, the first is image {first}",
            shape[0]
        )));
    }
    Ok(Read { values, labels })
}
