//! What opening a data set found apart from the images that it uses.

use std::collections::BTreeMap;
use std::fmt;

use crate::pixels;

/// Extensions of image formats that are not supported, in lower case.
const OTHER_IMAGES: [&str; 14] =
    ["avif", "cr2", "dng", "heic", "heif", "jp2", "jxl", "nef", "pbm", "pgm", "pnm", "ppm", "psd", "tga"];
/// How many kinds or names of files a message lists before it counts the rest.
pub(crate) const MAX_LISTED: usize = 5;

/// What a user should know about a data set that has been opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Files that are neither JPEG nor PNG, by their names.
    pub ignored: IgnoredFiles,
    /// Anything else that may be a mistake, one sentence each.
    pub warnings: Vec<String>,
}

/// Numbers of files by extension in lower case, which is empty if a name has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IgnoredFiles(pub BTreeMap<String, u64>);

impl Findings {
    /// Logs the findings: ignored images as a warning, other ignored files at level info.
    pub(crate) fn log(&self) {
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
        let files = &self.ignored;
        if files.0.keys().any(|extension| OTHER_IMAGES.contains(&extension.as_str())) {
            tracing::warn!(
                "ignored: {files}. Only {} are read; convert the others, for example to PNG, to train on them.",
                pixels::READ
            );
        } else if !files.0.is_empty() {
            tracing::info!("ignored: {files}");
        }
    }
}

/// Most frequent first: `20 .avif, 1 .tga`.
impl fmt::Display for IgnoredFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kinds: Vec<_> = self.0.iter().collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let phrases = kinds.iter().map(|(extension, count)| match extension.as_str() {
            "" => format!("{count} without extension"),
            _ => format!("{count} .{extension}"),
        });
        f.write_str(&some_of(phrases, MAX_LISTED))
    }
}

/// Lists at most `limit` of the phrases and counts the rest: `a.png, b.png and 7 more`.
pub fn some_of(phrases: impl IntoIterator<Item = String>, limit: usize) -> String {
    let mut phrases = phrases.into_iter();
    let shown = phrases.by_ref().take(limit).collect::<Vec<_>>().join(", ");
    match phrases.count() {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
