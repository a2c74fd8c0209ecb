//! The files of a sharded data set in an object store.

use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use crate::DataError;
use crate::listing::is_visible;
use crate::remote::Bucket;

/// As in the patterns of local paths.
const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// The objects that match any of the patterns, sorted; `folder` is what the patterns have in common.
pub(super) fn matching(bucket: &Bucket, folder: &Path, patterns: &[Pattern]) -> Result<Vec<PathBuf>, DataError> {
    let matches = |file: &PathBuf| patterns.iter().any(|pattern| pattern.matches_path_with(file, OPTIONS));
    Ok(bucket.list(folder)?.into_iter().filter(matches).collect())
}

/// The objects below `folder` whose names have one of these endings, sorted; hidden ones are left out.
pub(super) fn below(bucket: &Bucket, folder: &Path, endings: &[&str]) -> Result<Vec<PathBuf>, DataError> {
    let wanted = |file: &PathBuf| {
        let name = file.to_string_lossy().to_lowercase();
        let mut inside = file.strip_prefix(folder).unwrap_or(file).iter();
        endings.iter().any(|ending| name.ends_with(ending)) && inside.all(is_visible)
    };
    Ok(bucket.list(folder)?.into_iter().filter(wanted).collect())
}
