//! The data set that a configuration describes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ddpm_comm::{Agreed, Collective, agree};
use ddpm_config::{DataKind, DataSettings, Labels, OnCorrupt as OnCorruptSetting, Settings};
use ddpm_data::{DataSpec, FolderLabels, IdxLabels, OnCorrupt, Source, SourceKind, Split, class_phrases, some_of};

use crate::error::{Error, ErrorKind, Failure};

/// Classes that a line of the log names.
const CLASSES_SHOWN: usize = 20;

/// Opens the data set that `[data]` describes, and checks that its classes are those of `[model]`.
pub fn open(settings: &Settings, split: Split) -> Result<Arc<dyn Source>, Error> {
    let source = ddpm_data::open(&data_spec(settings, split)?)?;
    let Some(classes) = settings.model.classes else { return Ok(source) };
    match source.classes() {
        Some(found) if found <= classes as usize => Ok(source),
        Some(found) => Err(Error::config(format!(
            "the data has {found} classes but model.classes is {classes}; set it to {found}"
        ))),
        None => Err(Error::config(format!(
            "model.classes is {classes} but the data carries no labels; set data.labels, or leave model.classes out"
        ))),
    }
}

fn data_spec(settings: &Settings, split: Split) -> Result<DataSpec, Error> {
    let d = &settings.data;
    let kind = match d.kind {
        // Held-out digits are drawn by another seed.
        DataKind::Synthetic if split != Split::Train => SourceKind::Synthetic { count: d.count, seed: !settings.seed },
        DataKind::Synthetic => SourceKind::Synthetic { count: d.count, seed: settings.seed },
        DataKind::Packed => {
            return Err(Error::config("data.kind \"packed\" is not in this version; use \"folder\" or \"idx\""));
        }
        DataKind::Idx if split != Split::Train && Path::new(&d.path).is_file() => {
            return Err(Error::config(format!(
                "data.path is the file {}, which does not say where the {split} split is; set data.path to that split's file \
                 and ask for the train split",
                d.path
            )));
        }
        DataKind::Idx => SourceKind::Idx {
            images: PathBuf::from(&d.path),
            labels: match &d.labels {
                Labels::Path(path) => IdxLabels::At(PathBuf::from(path)),
                Labels::None => IdxLabels::None,
                _ => IdxLabels::Beside,
            },
            split,
        },
        DataKind::Folder => SourceKind::Folder {
            root: PathBuf::from(&d.path),
            split,
            labels: match &d.labels {
                Labels::Folder => FolderLabels::SubFolder,
                Labels::Attribute(name) => FolderLabels::Attribute(name.clone()),
                _ => FolderLabels::None,
            },
        },
    };
    Ok(DataSpec {
        kind,
        image_size: d.image_size as usize,
        channels: d.channels as usize,
        crop: d.crop,
        max_pixels: max_pixels(d),
        on_corrupt: match d.on_corrupt {
            OnCorruptSetting::Error => OnCorrupt::Error,
            OnCorruptSetting::Skip => OnCorrupt::Skip,
        },
    })
}

/// The first classes of a data set with their names and numbers of images, in a line for the log.
pub fn class_summary(source: &dyn Source) -> String {
    let table = source.class_table();
    some_of(class_phrases(&table), CLASSES_SHOWN)
}

/// The largest image that is decoded, in pixels.
pub fn max_pixels(data: &DataSettings) -> u64 {
    u64::from(data.max_megapixels) * 1_000_000
}

/// Refuses a data set that is not the same on every rank.
pub fn check_same(comm: &dyn Collective, source: &dyn Source) -> Result<(), Failure> {
    let identity = format!("{} {} {}", source.len(), source.fingerprint(), source.describe());
    if agree::alike(comm, identity.as_bytes()) {
        return Ok(());
    }
    let message = "the ranks see different data sets; make data.path the same files on every machine";
    Err(Agreed::known_to_all(Error::new(ErrorKind::Storage, message)).into())
}
