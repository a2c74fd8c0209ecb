//! Reads samples from files, and the images to compare them with.

use std::path::Path;
use std::sync::Arc;

use ddpm_config::DataSettings;
use ddpm_data::{
    Alpha, DataError, DataSpec, Fit, FolderLabels, ImageShape, OnCorrupt, Source, SourceKind, Split, class_folders,
    some_of,
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

/// Samples in files.
pub enum Samples {
    /// Of a safetensors file, f32 `[N, C, H, W]` in `[-1, 1]`, with the class of each image, if these are known.
    Tensor(Labelled),
    /// A folder of images, which are read when they are needed.
    Folder(Arc<dyn Source>),
}

impl Samples {
    /// Opens a safetensors file or a folder with images of the shape `image`. If `classes` is given and a folder has
    /// sub-folders, there must be as many; they are the classes, in the order of their names.
    ///
    /// # Errors
    /// The file or the folder cannot be read, or holds other images.
    pub fn open(path: &Path, image: ImageShape, classes: Option<i64>) -> Result<Self, Error> {
        if !path.is_dir() {
            let read = tensor_file::read(path, "samples", None, image.sizes())?;
            return Ok(Self::Tensor(Labelled { images: read.values, labels: read.labels }));
        }
        let source = ddpm_data::open(&DataSpec {
            kind: SourceKind::Folder { root: path.into(), split: Split::Train, labels: folder_labels(path, classes)? },
            image,
            crop: None,
            fit: Fit::Crop,
            alpha: Alpha::BLACK,
            range: None,
            jpeg_shrink: false,
            max_pixels: DataSettings::default().max_pixels(),
            on_corrupt: OnCorrupt::Error,
        })?;
        if source.classes().is_some() {
            tracing::info!("classes: {}", data::class_summary(source.as_ref()));
        }
        Ok(Self::Folder(source))
    }

    /// The number of images.
    pub fn count(&self) -> usize {
        match self {
            Self::Tensor(held) => held.images.size()[0] as usize,
            Self::Folder(source) => source.len() as usize,
        }
    }

    /// The shape of the images.
    pub fn image(&self) -> ImageShape {
        match self {
            Self::Folder(source) => source.image(),
            Self::Tensor(held) => {
                let size = held.images.size();
                ImageShape { channels: size[1] as usize, height: size[2] as usize, width: size[3] as usize }
            }
        }
    }

    /// `count` images from number `first` on.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read(&self, first: usize, count: usize) -> Result<Labelled, Error> {
        match self {
            Self::Tensor(Labelled { images, labels }) => Ok(Labelled {
                images: images.f_narrow(0, first as i64, count as i64)?,
                labels: labels.as_ref().map(|labels| labels[first..first + count].to_vec()),
            }),
            Self::Folder(source) => {
                let read = images::read(source.as_ref(), first as u64, count, Device::Cpu).map_err(|error| {
                    match error.cause::<DataError>() {
                        // The usual message would refer to [data] keys, which do not apply to these files.
                        Some(bad @ DataError::Image { .. }) => {
                            Error::new(ErrorKind::Storage, format!("{}. Replace or remove the file.", bad.fault()))
                        }
                        _ => error,
                    }
                })?;
                Ok(labelled(source.as_ref(), read))
            }
        }
    }
}

/// The shape of the images in a safetensors file, or of the first image in a folder.
pub fn shape(path: &Path) -> Result<ImageShape, Error> {
    if !path.is_dir() {
        return tensor_file::image_shape(path, "samples");
    }
    Ok(ddpm_data::first_shape(path, DataSettings::default().max_pixels())?)
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
