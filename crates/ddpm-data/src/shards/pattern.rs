//! Patterns of paths and addresses, with the braces of a shell.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern, PatternError};

use crate::DataError;

/// How patterns match, here and in stores: no `*` for a hidden file, or for several folders.
const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
/// The characters of patterns.
const SPECIAL: [char; 4] = ['*', '?', '[', '{'];
/// The most files that the braces of a pattern may stand for.
const MOST: usize = 1 << 20;

/// Whether a path is to be taken as a pattern, if there is nothing of this name.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(SPECIAL)
}

/// The files that match a pattern, sorted.
///
/// # Errors
/// [`DataError::Format`] if one of the patterns that it stands for matches none, as a list of shards that lacks one
/// would be another data set; [`DataError::Io`] if a folder cannot be read.
pub(super) fn files(path: &Path, text: &str) -> Result<Vec<PathBuf>, DataError> {
    all(path, text, |pattern| {
        let mut files = Vec::new();
        for file in glob::glob_with(pattern.as_str(), OPTIONS).map_err(|error| not_a_pattern(path, &error))? {
            let file = file.map_err(|error| {
                let path = error.path().to_path_buf();
                DataError::io(&path)(error.into())
            })?;
            if !file.is_dir() {
                files.push(file);
            }
        }
        Ok(files)
    })
}

/// The same among `listed` addresses, which are sorted.
pub(super) fn addresses(path: &Path, text: &str, listed: &[PathBuf]) -> Result<Vec<PathBuf>, DataError> {
    all(path, text, |pattern| {
        // Most patterns with braces name one file each.
        Ok(match pattern.as_str().contains(SPECIAL) {
            true => listed.iter().filter(|file| pattern.matches_path_with(file, OPTIONS)).cloned().collect(),
            false => listed.binary_search(&pattern.as_str().into()).map(|at| listed[at].clone()).into_iter().collect(),
        })
    })
}

/// What any of the patterns that a pattern stands for matches, sorted; each must match something.
fn all(
    path: &Path,
    text: &str,
    matched: impl Fn(&Pattern) -> Result<Vec<PathBuf>, DataError>,
) -> Result<Vec<PathBuf>, DataError> {
    let mut files = BTreeSet::new();
    for pattern in patterns(path, text)? {
        let matched = matched(&pattern)?;
        if matched.is_empty() {
            return Err(no_match(&pattern));
        }
        files.extend(matched);
    }
    Ok(files.into_iter().collect())
}

/// The part of a pattern's path before its first special character.
pub(super) fn fixed_part(path: &Path) -> PathBuf {
    path.iter().take_while(|part| !part.to_string_lossy().contains(SPECIAL)).collect()
}

/// The folder of an address before its first special character.
pub(super) fn address_part(pattern: &str) -> PathBuf {
    let fixed = pattern.split(SPECIAL).next().unwrap_or(pattern);
    fixed.rfind('/').map_or(fixed, |slash| &fixed[..slash]).into()
}

fn no_match(pattern: &Pattern) -> DataError {
    DataError::format(Path::new(pattern.as_str()), "no file matches this pattern; correct data.path, or fetch the file")
}

fn not_a_pattern(path: &Path, error: &PatternError) -> DataError {
    let reason = format!("this is not a pattern ({} at character {}); correct data.path", error.msg, error.pos);
    DataError::format(path, reason)
}

/// The patterns without braces that a pattern stands for.
fn patterns(path: &Path, text: &str) -> Result<Vec<Pattern>, DataError> {
    let expanded = expanded(text).ok_or_else(|| {
        DataError::format(path, format!("its braces stand for more than {MOST} files; correct data.path"))
    })?;
    let parsed = expanded.iter().map(|pattern| Pattern::new(pattern));
    parsed.collect::<Result<_, _>>().map_err(|error| not_a_pattern(path, &error))
}

/// Replaces braces by what they stand for, as a shell does: `{000..002}` and `{a,b}`. `None` if that is too much.
fn expanded(pattern: &str) -> Option<Vec<String>> {
    let unchanged = || Some(vec![pattern.to_owned()]);
    let Some((before, rest)) = pattern.split_once('{') else { return unchanged() };
    let Some((inner, after)) = rest.split_once('}') else { return unchanged() };
    let choices: Vec<String> = match inner.split_once("..") {
        None => inner.split(',').map(str::to_owned).collect(),
        Some((first, last)) => {
            let (Ok(from), Ok(to)) = (first.parse::<u32>(), last.parse::<u32>()) else { return unchanged() };
            if from.abs_diff(to) as usize >= MOST {
                return None;
            }
            let numbers = from.min(to)..=from.max(to);
            numbers.map(|n| format!("{n:0width$}", width = first.len().min(last.len()))).collect()
        }
    };
    let ends = expanded(after)?;
    if choices.len().saturating_mul(ends.len()) > MOST {
        return None;
    }
    Some(choices.iter().flat_map(|choice| ends.iter().map(move |end| format!("{before}{choice}{end}"))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_stand_for_what_a_shell_takes_them_for() {
        let text = |pattern: &str| expanded(pattern).map(|all| all.join(" "));
        for (pattern, expected) in [
            ("a-{008..010}.tar", "a-008.tar a-009.tar a-010.tar"),
            ("{8..10}", "8 9 10"),
            ("{2..0}", "0 1 2"),
            ("{a,b}-{0..1}", "a-0 a-1 b-0 b-1"),
            ("{a", "{a"),
            ("{a..c}", "{a..c}"),
        ] {
            assert_eq!(text(pattern).as_deref(), Some(expected), "{pattern}");
        }
        assert_eq!(text("{0..4000000000}"), None);
        assert_eq!(text("{0..9999}{0..9999}"), None);
    }
}
