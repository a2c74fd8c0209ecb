//! Which of the files belong to a split, by what their names say.

use std::path::{Path, PathBuf};

use ddpm_spec::ShardFormat;

use super::format::endings;
use crate::findings::{MAX_LISTED, some_of};
use crate::{DataError, Split};

/// The words that name a split, as in Hugging Face's `datasets`.
const WORDS: [(Split, &[&str]); 3] = [
    (Split::Train, &["train", "training"]),
    (Split::Valid, &["validation", "valid", "dev", "val"]),
    (Split::Test, &["test", "testing", "eval", "evaluation"]),
];

/// Some files, below the same folder.
pub(super) struct Files {
    /// What the user calls them.
    pub path: PathBuf,
    /// The part of their paths that says nothing of splits.
    pub root: PathBuf,
    /// All of them, sorted; there is at least one.
    pub files: Vec<PathBuf>,
    /// Whether the user chose each of them, by a pattern or its name, and not a folder of them.
    pub chosen: bool,
}

/// The files of one split.
pub(super) struct Found {
    pub files: Vec<PathBuf>,
    /// The split, if all their names say it.
    pub split: Option<Split>,
    /// What was left out, one sentence each.
    pub warnings: Vec<String>,
}

impl Files {
    /// The files of `split`: those whose names say it. All files are for training if no name says a split; if the user
    /// chose the files, those whose names say none are in any case, and those of other splits are if there are no others.
    ///
    /// # Errors
    /// [`DataError::Format`] if there are none.
    pub(super) fn of_split(self, split: Split, format: ShardFormat) -> Result<Found, DataError> {
        let said = |file: &PathBuf| split_of(file.strip_prefix(&self.root).unwrap_or(file));
        let (ours, rest): (Vec<_>, Vec<_>) = self.files.iter().cloned().partition(|file| said(file) == Some(split));
        let (unnamed, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|file| said(file).is_none());
        let found = |files, split, warnings| Ok(Found { files, split, warnings });
        let warning = |files: &[PathBuf], what: &str| match files.is_empty() {
            true => Vec::new(),
            false => vec![format!("{}: {}: {what}", self.path.display(), self.listed(files))],
        };
        if split == Split::Train && (self.chosen || ours.is_empty() && others.is_empty()) {
            if ours.is_empty() && unnamed.is_empty() {
                return found(others, None, Vec::new());
            }
            let what = "not used for training, as the name says another split. Rename it, or give data.path as a pattern \
                        that only matches files to train on.";
            let named = unnamed.is_empty().then_some(split);
            let warnings = warning(&others, what);
            let is_ours = |file: &PathBuf| said(file).is_none_or(|said| said == split);
            let files = self.files.iter().filter(|file| is_ours(file)).cloned().collect();
            return found(files, named, warnings);
        }
        if !ours.is_empty() {
            let what = "not used, as the name says no split, but those of others do. Name it like the others, or give \
                        data.path as a pattern that matches all files to train on.";
            return found(ours, Some(split), warning(&unnamed, what));
        }
        let words = WORDS.iter().filter(|(other, _)| others.iter().any(|file| said(file) == Some(*other)));
        let words: Vec<String> = words.map(|(other, _)| other.to_string()).collect();
        let say = match words.is_empty() {
            true => "no file name says its split".into(),
            false => format!("the names say {}", words.join(" and ")),
        };
        let reason = format!(
            "there is no file of the {split} split ({say}); name the files like {split}-00000.{}, or point data.path at \
             them by a pattern and request the train split",
            endings(format)[0].trim_start_matches('.')
        );
        Err(DataError::format(&self.path, reason))
    }

    /// The first of these files by their names, and how many more there are.
    fn listed(&self, files: &[PathBuf]) -> String {
        let names = files.iter().map(|file| file.strip_prefix(&self.root).unwrap_or(file).display().to_string());
        some_of(names, MAX_LISTED)
    }
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
