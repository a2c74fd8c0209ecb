//! Reading CelebA's list files: text as published by its authors, or CSV as on Kaggle.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::findings::Findings;
use crate::{DataError, OnCorrupt, Split};

/// The value of each image in a list, by its lower-case file name without extension, so that images that were converted
/// to PNG or renamed to upper case are found too.
pub(super) struct List<T> {
    path: PathBuf,
    rows: HashMap<String, T>,
}

impl<T: Copy + PartialEq> List<T> {
    fn new(path: &Path) -> Self {
        List { path: path.to_path_buf(), rows: HashMap::new() }
    }

    /// Looks up each file in the list. Files without a row are an error, or are left out with a warning.
    pub fn match_rows(
        &self,
        files: Vec<PathBuf>,
        on_corrupt: OnCorrupt,
        findings: &mut Findings,
    ) -> Result<Vec<(PathBuf, T)>, DataError> {
        let (all, mut listed, mut unlisted) = (files.len(), Vec::with_capacity(files.len()), Vec::new());
        for file in files {
            match self.rows.get(&stem(&file)) {
                Some(value) => listed.push((file, *value)),
                None => unlisted.push(file),
            }
        }
        let Some(name) = unlisted.first().and_then(|file| file.file_name()).map(OsStr::display) else {
            return Ok(listed);
        };
        if listed.is_empty() {
            let row = self.rows.keys().min().map_or("nothing", String::as_str);
            let reason = format!(
                "none of the {all} images has a row in this list: the images are named like {name}, the rows like {row}; \
                 use the list that belongs to these images, or move this one away"
            );
            return Err(DataError::format(&self.path, reason));
        }
        let what = format!("without a row in this list: {} of the {all} images, such as {name}", unlisted.len());
        if on_corrupt == OnCorrupt::Error {
            let reason = format!("{what}; add their rows, or set data.on_corrupt = \"skip\" to leave them out");
            return Err(DataError::format(&self.path, reason));
        }
        findings.warnings.push(format!("{}: {what}. They are left out.", self.path.display()));
        Ok(listed)
    }

    /// The warning that some rows refer to images that are not among `files`.
    pub fn missing_images_warning(&self, files: &[PathBuf]) -> Option<String> {
        let names: HashSet<String> = files.iter().map(|file| stem(file)).collect();
        let (all, absent) = (self.rows.len(), self.rows.keys().filter(|name| !names.contains(*name)).count());
        (absent > 0)
            .then(|| format!("{}: {absent} of the {all} rows refer to images that do not exist.", self.path.display()))
    }

    fn insert(&mut self, line: usize, name: &str, value: T) -> Result<(), DataError> {
        match self.rows.insert(stem(Path::new(name)), value) {
            Some(before) if before != value => {
                let reason = format!("line {line} contradicts an earlier line for {name}; keep one of them");
                Err(DataError::format(&self.path, reason))
            }
            _ => Ok(()),
        }
    }
}

/// The split of each image: rows such as `000001.jpg 0`, where 0, 1 and 2, or their names, are train, valid and test.
pub(super) fn partition(path: &Path) -> Result<List<Split>, DataError> {
    let mut list = List::new(path);
    for (number, line) in lines(&read(path)?) {
        match fields(line)[..] {
            [name, word] if let Some(split) = split(word) => list.insert(number, name, split)?,
            // `image_id,partition`
            [name, word] if number == 1 && is_heading(name) && is_heading(word) => {}
            _ => return Err(malformed(path, number, "a file name and 0, 1 or 2")),
        }
    }
    Ok(list)
}

fn split(word: &str) -> Option<Split> {
    match word.to_ascii_lowercase().as_str() {
        "0" | "train" | "training" => Some(Split::Train),
        "1" | "val" | "valid" | "validation" => Some(Split::Valid),
        "2" | "test" | "testing" => Some(Split::Test),
        _ => None,
    }
}

/// Whether this can be a column heading: neither a file name nor a number.
fn is_heading(word: &str) -> bool {
    !word.contains(|c: char| c == '.' || c.is_ascii_digit())
}

/// The class of each image by one attribute: 0 for -1 (or 0), 1 for 1. The text format starts with one line for the
/// number of images and one for the names of the attributes; CSV has a heading.
pub(super) fn attribute(path: &Path, name: &str) -> Result<List<u32>, DataError> {
    let text = read(path)?;
    let mut lines = lines(&text);
    let first = lines.next().map(|(_, line)| line).unwrap_or_default();
    let count: Option<usize> = first.trim().parse().ok();
    let names = match count {
        Some(_) => lines.next().map(|(_, line)| fields(line)).unwrap_or_default(),
        None if first.contains(',') => fields(first).split_off(1),
        None => return Err(malformed(path, 1, "the number of images, or a CSV heading")),
    };
    let column = names.iter().position(|known| *known == name).ok_or_else(|| unknown(path, name, &names))?;
    let mut list = List::new(path);
    for (number, line) in lines {
        let fields = fields(line);
        let value = fields.get(1 + column).filter(|_| fields.len() == 1 + names.len());
        let label = match value {
            Some(&"1") => 1,
            Some(&("-1" | "0")) => 0,
            _ => return Err(malformed(path, number, &format!("a file name and {} times 1 or -1", names.len()))),
        };
        list.insert(number, fields[0], label)?;
    }
    match count {
        Some(count) if count != list.rows.len() => {
            let reason = format!(
                "the first line announces {count} images, but {} follow; download the file again",
                list.rows.len()
            );
            Err(DataError::format(path, reason))
        }
        _ => Ok(list),
    }
}

/// The text without the byte order mark that some editors add.
fn read(path: &Path) -> Result<String, DataError> {
    let bytes = fs::read(path).map_err(DataError::io(path))?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned())
}

/// Non-blank lines with their numbers, 1-based.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty())
}

/// Splits at commas or, if there are none, at white space.
fn fields(line: &str) -> Vec<&str> {
    match line.contains(',') {
        true => line.split(',').map(|field| field.trim().trim_matches('"')).collect(),
        false => line.split_whitespace().collect(),
    }
}

fn malformed(path: &Path, line: usize, expected: &str) -> DataError {
    DataError::format(path, format!("line {line} is not {expected}; download the file again"))
}

fn unknown(path: &Path, name: &str, names: &[&str]) -> DataError {
    let likeness = |known: &str| strsim::jaro_winkler(&known.to_lowercase(), &name.to_lowercase());
    let nearest = names.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let hint = nearest.map_or("download the file again".into(), |nearest| format!("did you mean '{nearest}'?"));
    DataError::format(path, format!("the list has no attribute '{name}'; {hint}"))
}

fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().to_lowercase()
}
