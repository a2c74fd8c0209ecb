//! What opening a data set found beside the images that it uses.

use std::collections::BTreeMap;
use std::fmt;

/// Extensions of pictures that this program does not read, in lower case.
const PICTURES: [&str; 19] = [
    "avif", "bmp", "cr2", "dng", "gif", "heic", "heif", "jp2", "jxl", "nef", "pbm", "pgm", "pnm", "ppm", "psd", "tga",
    "tif", "tiff", "webp",
];
/// Kinds of files, or names of files, that a message shows before it counts the rest.
pub(crate) const SHOWN: usize = 5;

/// What a user should know of a data set that has been opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Files that are neither JPEG nor PNG by their names.
    pub passed_over: PassedOver,
    /// Anything else that may be a mistake, a sentence each.
    pub warnings: Vec<String>,
}

/// Numbers of files by extension, which is in lower case, or empty where a name has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassedOver(pub BTreeMap<String, u64>);

impl Findings {
    /// Logs them: pictures that were passed over as a warning, other files for information.
    pub(crate) fn log(&self) {
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
        let files = &self.passed_over;
        if files.0.keys().any(|extension| PICTURES.contains(&extension.as_str())) {
            tracing::warn!(
                "passed over: {files}. Only JPEG and PNG files are read; convert the others to train on them."
            );
        } else if !files.0.is_empty() {
            tracing::info!("passed over: {files}");
        }
    }
}

/// The most frequent kinds first: `20 .webp, 1 .bmp`.
impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kinds: Vec<_> = self.0.iter().collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let phrases = kinds.iter().map(|(extension, count)| match extension.as_str() {
            "" => format!("{count} without extension"),
            _ => format!("{count} .{extension}"),
        });
        f.write_str(&some_of(phrases, SHOWN))
    }
}

/// The first of some phrases, at `most` so many, and how many more there are: `a.png, b.png and 7 more`.
pub fn some_of(phrases: impl IntoIterator<Item = String>, most: usize) -> String {
    let mut phrases = phrases.into_iter();
    let shown = phrases.by_ref().take(most).collect::<Vec<_>>().join(", ");
    match phrases.count() {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
