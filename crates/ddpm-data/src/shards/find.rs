//! The files of a sharded data set: one file, a folder, or a pattern; and the split that the name of each says.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ddpm_spec::ShardFormat;
use glob::{Pattern, PatternError};
use walkdir::WalkDir;

use super::format::{endings, noun};
use super::objects;
use crate::listing::is_visible;
use crate::remote::Bucket;
use crate::{DataError, Split};

/// The characters of patterns.
const PATTERN: [char; 4] = ['*', '?', '[', '{'];

/// The words that name a split, as in Hugging Face's `datasets`.
const WORDS: [(Split, &[&str]); 3] = [
    (Split::Train, &["train", "training"]),
    (Split::Valid, &["validation", "valid", "dev", "val"]),
    (Split::Test, &["test", "testing", "eval", "evaluation"]),
];

/// The files of one split, sorted, and whether their names say that they belong to it.
pub(super) struct Found {
    pub files: Vec<PathBuf>,
    pub split: Option<Split>,
}

/// Finds the files of `split` at `path`, in `bucket` if it is an address. If no name says a split, all files are for training; if `path` is a file or a
/// pattern, which the user chose, they also are if the names say other splits only.
///
/// # Errors
/// [`DataError::Format`] if there are none, [`DataError::Io`] if `path` cannot be read.
pub(super) fn find(
    path: &Path,
    format: ShardFormat,
    split: Split,
    bucket: Option<&Bucket>,
) -> Result<Found, DataError> {
    let text = path.to_string_lossy();
    let is_pattern = text.contains(PATTERN) && !path.exists();
    let is_folder = match bucket {
        // A store has no folders: what is not named like a file is taken for one.
        Some(_) => !endings(format).iter().any(|ending| text.to_lowercase().ends_with(ending)),
        None => path.is_dir(),
    };
    let is_folder = is_folder && !is_pattern;
    let (root, files) = match (bucket, is_pattern) {
        (None, true) => (fixed_part(path), matches(path, &text)?),
        (Some(bucket), true) => {
            (fixed_part(path), objects::matching(bucket, &address_part(&text), &patterns(path, &text)?)?)
        }
        (None, false) if is_folder => (path.to_path_buf(), below(path, format)?),
        (Some(bucket), false) if is_folder => (path.to_path_buf(), objects::below(bucket, path, endings(format))?),
        // Whether it exists, and is a file that can be read, shows when it is opened.
        (_, false) => (path.parent().unwrap_or(path).to_path_buf(), vec![path.to_path_buf()]),
    };
    if files.is_empty() {
        let reason = match is_pattern {
            true => "no file matches this pattern; correct data.path".into(),
            false => format!(
                "there is no {} file ({}) below this folder; point data.path at the folder that contains them, or \
                 change data.kind",
                noun(format),
                endings(format).join(", ")
            ),
        };
        return Err(DataError::format(path, reason));
    }
    let splits: Vec<Option<Split>> =
        files.iter().map(|file| split_of(file.strip_prefix(&root).unwrap_or(file))).collect();
    let chosen: Vec<PathBuf> =
        files.iter().zip(&splits).filter(|(_, named)| **named == Some(split)).map(|(file, _)| file.clone()).collect();
    if !chosen.is_empty() {
        return Ok(Found { files: chosen, split: Some(split) });
    }
    let named = splits.iter().any(Option::is_some);
    if split == Split::Train && (!named || !is_folder) {
        return Ok(Found { files, split: None });
    }
    let others: Vec<String> =
        WORDS.iter().filter(|(other, _)| splits.contains(&Some(*other))).map(|(other, _)| other.to_string()).collect();
    let found = match others.is_empty() {
        true => "no file name says its split".into(),
        false => format!("the names say {}", others.join(" and ")),
    };
    let reason = format!(
        "there is no file of the {split} split ({found}); name the files like {split}-00000.{}, or point data.path at \
         them by a pattern and request the train split",
        endings(format)[0].trim_start_matches('.')
    );
    Err(DataError::format(path, reason))
}

/// The files below a folder with an ending of the format, sorted.
fn below(folder: &Path, format: ShardFormat) -> Result<Vec<PathBuf>, DataError> {
    let mut files = Vec::new();
    let walk = WalkDir::new(folder).follow_links(true).into_iter();
    for entry in walk.filter_entry(|entry| entry.depth() == 0 || is_visible(entry.file_name())) {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(folder).to_path_buf();
            let source = error.into_io_error().unwrap_or_else(|| std::io::Error::other("it is a link to a parent"));
            DataError::Io { path, source }
        })?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if !entry.file_type().is_dir() && endings(format).iter().any(|ending| name.ends_with(ending)) {
            files.push(entry.into_path());
        }
    }
    files.sort();
    Ok(files)
}

/// The files that match a pattern, sorted.
fn matches(path: &Path, pattern: &str) -> Result<Vec<PathBuf>, DataError> {
    let mut files = BTreeSet::new();
    for pattern in patterns(path, pattern)? {
        let found = glob::glob(pattern.as_str()).map_err(|error| not_a_pattern(path, &error))?;
        for file in found {
            let file = file.map_err(|error| {
                let path = error.path().to_path_buf();
                DataError::io(&path)(error.into())
            })?;
            if !file.is_dir() {
                files.insert(file);
            }
        }
    }
    Ok(files.into_iter().collect())
}

fn patterns(path: &Path, pattern: &str) -> Result<Vec<Pattern>, DataError> {
    let parsed = expanded(pattern).into_iter().map(|pattern| Pattern::new(&pattern));
    parsed.collect::<Result<_, _>>().map_err(|error| not_a_pattern(path, &error))
}

fn not_a_pattern(path: &Path, error: &PatternError) -> DataError {
    let reason = format!("this is not a pattern ({} at character {}); correct data.path", error.msg, error.pos);
    DataError::format(path, reason)
}

/// Replaces braces by what they stand for, as a shell does: `{000..002}` and `{a,b}`.
fn expanded(pattern: &str) -> Vec<String> {
    let Some((before, rest)) = pattern.split_once('{') else { return vec![pattern.to_owned()] };
    let Some((inner, after)) = rest.split_once('}') else { return vec![pattern.to_owned()] };
    let choices: Vec<String> = match inner.split_once("..") {
        Some((first, last)) => match (first.parse::<u32>(), last.parse::<u32>()) {
            (Ok(from), Ok(to)) => (from..=to).map(|n| format!("{n:0width$}", width = first.len())).collect(),
            _ => return vec![pattern.to_owned()],
        },
        None => inner.split(',').map(str::to_owned).collect(),
    };
    let ends = expanded(after);
    choices.iter().flat_map(|choice| ends.iter().map(move |end| format!("{before}{choice}{end}"))).collect()
}

/// The part of a pattern's path before its first special character.
fn fixed_part(path: &Path) -> PathBuf {
    path.iter().take_while(|part| !part.to_string_lossy().contains(PATTERN)).collect()
}

/// The folder of an address before its first special character.
fn address_part(pattern: &str) -> PathBuf {
    let fixed = pattern.split(PATTERN).next().unwrap_or(pattern);
    fixed.rfind('/').map_or(fixed, |slash| &fixed[..slash]).into()
}

/// The split that a path says: the first word that names one, in the file's name or else in the nearest folder's.
fn split_of(path: &Path) -> Option<Split> {
    path.iter().rev().find_map(|part| {
        let part = part.to_string_lossy().to_lowercase();
        let words = part.split(|c: char| !c.is_alphabetic());
        words
            .into_iter()
            .find_map(|word| WORDS.iter().find(|(_, words)| words.contains(&word)).map(|(split, _)| *split))
    })
}
