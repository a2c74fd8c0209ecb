//! Samples, as `sample` wrote them, and images to hold them against.

use std::path::Path;

use ddpm_config::DataSettings;
use ddpm_data::{DataSpec, FolderLabels, OnCorrupt, Source, SourceKind, Split};
use tch::{Device, Tensor};

use crate::failure::Failure;
use crate::{assemble, images, tensors};

/// Images f32 `[N, C, H, W]` in `[-1, 1]`, and the class of each where that is known.
pub struct Labelled {
    pub images: Tensor,
    pub labels: Option<Vec<i64>>,
}

/// Images of `(channels, size)` in a safetensors file or a folder. Where `classes` are told apart, a folder's sub-folders,
/// as many, are the classes in the order of their names.
pub fn read(path: &Path, image: (i64, i64), classes: Option<i64>) -> Result<Labelled, Failure> {
    let (channels, size) = image;
    if !path.is_dir() {
        let read = tensors::read(path, "samples", None, [channels, size, size], ", as `sample` writes it")?;
        return Ok(Labelled { images: read.values, labels: read.labels });
    }
    let source = ddpm_data::open(&DataSpec {
        kind: SourceKind::Folder { root: path.into(), split: Split::Train, labels: folder_labels(path, classes)? },
        image_size: size as usize,
        channels: channels as usize,
        crop: None,
        max_pixels: assemble::max_pixels(&DataSettings::default()),
        on_corrupt: OnCorrupt::Error,
    })?;
    first(source.as_ref(), source.len())
}

/// The first images of a data set.
pub fn first(source: &dyn Source, count: u64) -> Result<Labelled, Failure> {
    let images::Images { x_start, labels } = images::read(source, 0, count as usize, Device::Cpu)?;
    Ok(Labelled { images: x_start, labels: source.classes().map(|_| labels) })
}

fn folder_labels(path: &Path, classes: Option<i64>) -> Result<FolderLabels, Failure> {
    let Some(classes) = classes else { return Ok(FolderLabels::None) };
    let entries = std::fs::read_dir(path).map_err(|e| Failure::file(path, e))?;
    let found = entries.filter_map(Result::ok).filter(|entry| entry.path().is_dir()).count() as i64;
    match found {
        0 => Ok(FolderLabels::None),
        _ if found == classes => Ok(FolderLabels::SubFolder),
        _ => Err(Failure::usage(format!(
            "{} has {found} sub-folders and the classifier tells {classes} classes; give one sub-folder for each, or none",
            path.display()
        ))),
    }
}
