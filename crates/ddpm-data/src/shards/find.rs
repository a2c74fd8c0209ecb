//! The files of a sharded data set: one file, a folder, or a pattern; here or in an object store.

use std::path::{Path, PathBuf};

use ddpm_spec::ShardFormat;
use walkdir::WalkDir;

use super::format::{endings, noun};
use super::pattern;
use super::split::Files;
use crate::DataError;
use crate::listing::is_visible;
use crate::remote::Bucket;

/// Finds the files at `path`, in `bucket` if it is an address.
///
/// # Errors
/// [`DataError::Format`] if there are none, [`DataError::Io`] or [`DataError::Store`] if `path` cannot be read.
pub(super) fn find(path: &Path, format: ShardFormat, bucket: Option<&Bucket>) -> Result<Files, DataError> {
    let text = path.to_string_lossy();
    let endings = endings(format);
    if pattern::is_pattern(&text) && !path.exists() {
        let files = match bucket {
            Some(bucket) => pattern::addresses(path, &text, &bucket.list(&pattern::address_part(&text))?)?,
            None => pattern::files(path, &text)?,
        };
        return Ok(Files { path: path.to_path_buf(), root: pattern::fixed_part(path), files, chosen: true });
    }
    let is_folder = match bucket {
        // A store has no folders: what is not named like a file is taken for one.
        Some(_) => !endings.iter().any(|ending| text.to_lowercase().ends_with(ending)),
        None => path.is_dir(),
    };
    if !is_folder {
        // Whether it exists, and is a file that can be read, shows when it is opened.
        let root = path.parent().unwrap_or(path).to_path_buf();
        return Ok(Files { path: path.to_path_buf(), root, files: vec![path.to_path_buf()], chosen: true });
    }
    let mut files = match bucket {
        Some(bucket) => objects_below(bucket, path)?,
        None => files_below(path)?,
    };
    files.retain(|file| {
        let name = file.to_string_lossy().to_lowercase();
        endings.iter().any(|ending| name.ends_with(ending))
    });
    if files.is_empty() {
        let (noun, endings) = (noun(format), endings.join(", "));
        let reason = format!(
            "there is no {noun} file ({endings}) below this folder; point data.path at the folder that contains them, or \
             change data.kind"
        );
        return Err(DataError::format(path, reason));
    }
    Ok(Files { path: path.to_path_buf(), root: path.to_path_buf(), files, chosen: false })
}

/// The files below a folder, sorted; hidden ones are left out.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut files = Vec::new();
    let walk = WalkDir::new(folder).follow_links(true).into_iter();
    for entry in walk.filter_entry(|entry| entry.depth() == 0 || is_visible(entry.file_name())) {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(folder).to_path_buf();
            let source = error.into_io_error().unwrap_or_else(|| std::io::Error::other("it is a link to a parent"));
            DataError::Io { path, source }
        })?;
        if !entry.file_type().is_dir() {
            files.push(entry.into_path());
        }
    }
    files.sort();
    Ok(files)
}

/// The same in a bucket.
fn objects_below(bucket: &Bucket, folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut files = bucket.list(folder)?;
    files.retain(|file| file.strip_prefix(folder).unwrap_or(file).iter().all(is_visible));
    Ok(files)
}
