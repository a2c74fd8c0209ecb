//! `manifest.json` of a packed data set: what was packed, and the checksum of each shard.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{DataError, parallel};

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
    /// The text of `manifest.json`.
    pub(super) fn text(&self) -> String {
        serde_json::to_string_pretty(self).expect("a manifest holds only what JSON can express")
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

/// What is wrong with the shards in a folder according to its manifest, one phrase each; `None` if it has no manifest.
///
/// # Errors
/// [`DataError::Io`] if a file cannot be read.
pub fn verify(folder: &Path) -> Result<Option<Vec<String>>, DataError> {
    let path = folder.join(NAME);
    let text = match fs::read(&path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        read => read.map_err(DataError::io(&path))?,
    };
    let parsed: Result<Manifest, _> = serde_json::from_slice(&text);
    let Some(manifest) = parsed.ok().filter(|manifest| manifest.made_by == MADE_BY) else { return Ok(None) };
    let faults = parallel::map(&manifest.shards, |shard| -> Result<Option<String>, DataError> {
        let path = folder.join(&shard.name);
        let mut hash = Hashing::new(io::sink());
        match File::open(&path).and_then(|mut file| io::copy(&mut file, &mut hash)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Some(format!("{}: this shard is missing; pack again, or restore it", path.display())));
            }
            read => read.map_err(DataError::io(&path))?,
        };
        let same = (hash.bytes, hash.hex()) == (shard.bytes, shard.sha256.clone());
        let changed =
            || format!("{}: this shard is not the one that was packed; restore it, or pack again", path.display());
        Ok((!same).then(changed))
    })?;
    Ok(Some(faults.into_iter().flatten().collect()))
}

/// Passes on what is written, and hashes it.
pub(super) struct Hashing<W> {
    pub out: W,
    hash: Sha256,
    pub bytes: u64,
}

impl<W> Hashing<W> {
    pub(super) fn new(out: W) -> Self {
        Hashing { out, hash: Sha256::new(), bytes: 0 }
    }

    pub(super) fn hex(&self) -> String {
        self.hash.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl<W: io::Write> io::Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
