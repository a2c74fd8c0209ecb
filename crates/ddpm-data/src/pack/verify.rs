//! Whether the shards of a packed data set are those that were packed.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::folder::Folder;
use super::hashing::Hashing;
use super::manifest::Manifest;
use crate::remote::{Bucket, is_address};
use crate::{DataError, parallel};

/// What is wrong with the shards in a folder, or at an address, according to its manifest, one phrase each; `None` if
/// it has no manifest. Each shard is read completely.
///
/// # Errors
/// [`DataError::Io`] or [`DataError::Store`] if a file cannot be read, [`DataError::Format`] if the manifest cannot.
pub fn verify(root: &Path) -> Result<Option<Vec<String>>, DataError> {
    let bucket = match is_address(root) {
        true => Some(Arc::new(Bucket::of(root, None, 0)?)),
        false => None,
    };
    let folder = Folder::new(root, bucket);
    let Some(manifest) = Manifest::find(&folder)? else { return Ok(None) };
    let faults = parallel::map(&manifest.shards, |shard| -> Result<Option<String>, DataError> {
        let path = folder.path(&shard.name);
        let fault = |what: &str| Ok(Some(format!("{}: {what}", path.display())));
        let Some(mut file) = folder.open(&shard.name)? else {
            return fault("this shard is missing; pack again, or restore it");
        };
        let mut hash = Hashing::new(io::sink());
        io::copy(&mut file, &mut hash).map_err(DataError::io(&path))?;
        match (hash.bytes, hash.hex()) == (shard.bytes, shard.sha256.clone()) {
            true => Ok(None),
            false => fault("this shard is not the one that was packed; restore it, or pack again"),
        }
    })?;
    Ok(Some(faults.into_iter().flatten().collect()))
}
