//! Reads samples from files, and the images to compare them with.

use std::path::Path;

use ddpm_config::DataSettings;
use ddpm_data::{
    DataError, DataSpec, FolderLabels, ImageShape, OnCorrupt, Source, SourceKind, Split, class_folders, some_of,
};
use tch::{Device, Tensor};

use crate::error::{Error, ErrorKind};
use crate::{data, images, tensor_file};

/// Maximum number of sub-folders named in a message.
const FOLDERS_SHOWN: usize = 10;

/// Images with their classes, if these are known.
pub struct Labelled {
    /// f32 `[N, C, H, W]` in `[-1, 1]`.
    pub images: Tensor,
    /// The class of each image.
    pub labels: Option<Vec<i64>>,
}

/// Reads images of the shape `image` from a safetensors file or a folder. If `classes` is given and a folder has
/// sub-folders, there must be as many; they are the classes, in the order of their names.
pub fn read(path: &Path, image: ImageShape, classes: Option<i64>) -> Result<Labelled, Error> {
    if !path.is_dir() {
        let read = tensor_file::read(path, "samples", None, image.sizes())?;
        return Ok(Labelled { images: read.values, labels: read.labels });
    }
    let source = ddpm_data::open(&DataSpec {
        kind: SourceKind::Folder { root: path.into(), split: Split::Train, labels: folder_labels(path, classes)? },
        image,
        crop: None,
        max_pixels: DataSettings::default().max_pixels(),
        on_corrupt: OnCorrupt::Error,
    })?;
    if source.classes().is_some() {
        tracing::info!("classes: {}", data::class_summary(source.as_ref()));
    }
    let batch = ddpm_data::preview(source.as_ref(), 0, source.len() as usize).map_err(|error| match error {
        // The usual message would refer to [data] keys, which do not apply to these files.
        DataError::Image { .. } => {
            Error::new(ErrorKind::Storage, format!("{}. Replace or remove the file.", error.fault()))
        }
        other => other.into(),
    })?;
    Ok(labelled(source.as_ref(), images::of_batch(source.as_ref(), batch, Device::Cpu)?))
}

/// The shape of the images in a safetensors file, or of the first image in a folder.
pub fn shape(path: &Path) -> Result<ImageShape, Error> {
    if !path.is_dir() {
        return tensor_file::image_shape(path, "samples");
    }
    let shape = ddpm_data::first_shape(path, DataSettings::default().max_pixels())?;
    if shape.height == shape.width {
        return Ok(shape);
    }
    let (path, ImageShape { height, width, .. }) = (path.display(), shape);
    Err(Error::config(format!("the first image in {path} has {width} x {height} pixels; give square images")))
}

/// The first images of a data set.
pub fn first(source: &dyn Source, count: u64) -> Result<Labelled, Error> {
    Ok(labelled(source, images::read(source, 0, count as usize, Device::Cpu)?))
}

fn labelled(source: &dyn Source, images: images::Images) -> Labelled {
    Labelled { images: images.x_start, labels: source.classes().map(|_| images.labels) }
}

fn folder_labels(path: &Path, classes: Option<i64>) -> Result<FolderLabels, Error> {
    let Some(classes) = classes else { return Ok(FolderLabels::None) };
    let found = class_folders(path)?;
    match found.len() {
        0 => Ok(FolderLabels::None),
        folders if folders as i64 == classes => Ok(FolderLabels::SubFolder),
        folders => Err(Error::config(format!(
            "{} has {folders} sub-folders ({}) and the classifier distinguishes {classes} classes; give one sub-folder \
             for each, or none",
            path.display(),
            some_of(found, FOLDERS_SHOWN)
        ))),
    }
}
