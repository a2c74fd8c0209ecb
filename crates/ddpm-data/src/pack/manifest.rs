//! `manifest.json` of a packed data set: what was packed, and the checksum of each shard.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use ddpm_telemetry::write_atomic_with;
use serde::{Deserialize, Serialize};

use super::folder::Folder;
use crate::DataError;
use crate::remote::Bucket;

/// The name of the file.
pub(super) const NAME: &str = "manifest.json";
/// By which a manifest is distinguished from other files of this name.
pub(super) const MADE_BY: &str = "ddpm-dist data pack";

/// A format to pack into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackFormat {
    /// Hugging Face's Parquet.
    Parquet,
    /// WebDataset: tar files.
    Webdataset,
}

/// What a packed data set contains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The program that wrote it.
    pub made_by: String,
    /// The format of the shards.
    pub format: PackFormat,
    /// All images.
    pub images: u64,
    /// Images of the original data set that were unusable and are not here.
    pub left_out: u64,
    /// Channels, height and width that all images were brought to; `None` if they are the original files.
    pub resized: Option<[usize; 3]>,
    /// The names of the classes with their numbers of images in the original data set.
    pub classes: Vec<(String, u64)>,
    /// The shards in their order.
    pub shards: Vec<PackedShard>,
}

impl Manifest {
    /// The manifest in a folder; `None` if there is none, or a file of this name that another program wrote.
    ///
    /// # Errors
    /// [`DataError::Format`] if it is damaged; [`DataError::Io`] or [`DataError::Store`] if it cannot be read.
    pub(super) fn find(folder: &Folder) -> Result<Option<Self>, DataError> {
        let path = folder.path(NAME);
        let Some(mut file) = folder.open(NAME)? else { return Ok(None) };
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(DataError::io(&path))?;
        let value: serde_json::Value = serde_json::from_slice(&text)
            .map_err(|error| DataError::format(&path, format!("it is damaged ({error}); restore it, or pack again")))?;
        if value["made_by"] != MADE_BY {
            return Ok(None);
        }
        let unknown = |error| DataError::format(&path, format!("this version cannot read it ({error}); pack again"));
        serde_json::from_value(value).map(Some).map_err(unknown)
    }

    /// Writes `manifest.json`.
    pub(super) fn save(&self, folder: &Path) -> io::Result<()> {
        write_atomic_with(&folder.join(NAME), |file| {
            serde_json::to_writer_pretty(&mut *file, self)?;
            file.write_all(b"\n")
        })
    }
}

/// One file of a packed data set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedShard {
    /// Its name.
    pub name: String,
    /// Its images.
    pub images: u64,
    /// Its size.
    pub bytes: u64,
    /// Its checksum, in hexadecimal.
    pub sha256: String,
}

/// The names of the classes of the packed data set that is in `folder`, of `bucket` if it is an address: tar files
/// have none themselves. `None` if the folder has no manifest that can be used.
///
/// # Errors
/// [`DataError::Store`] if the store does not say, or [`DataError::Stopped`]: without names, the data set would count
/// as another one.
pub(crate) fn class_names(folder: &Path, bucket: Option<&Arc<Bucket>>) -> Result<Option<Vec<String>>, DataError> {
    let folder = Folder::new(folder, bucket.cloned());
    let manifest = match Manifest::find(&folder) {
        Err(error @ (DataError::Store { .. } | DataError::Stopped)) => return Err(error),
        found => found.inspect_err(|error| tracing::warn!("{error}")).ok().flatten(),
    };
    Ok(manifest.map(|manifest| manifest.classes.into_iter().map(|(name, _)| name).collect()))
}
