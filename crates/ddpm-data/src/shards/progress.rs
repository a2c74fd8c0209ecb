//! How far the scan of many files is: logged while it takes long.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often it is logged.
const INTERVAL: Duration = Duration::from_secs(10);

/// The files that have been opened, of all files of a data set.
pub(super) struct Progress<'a> {
    root: &'a Path,
    files: usize,
    done: AtomicUsize,
    /// When it was logged last.
    logged: Mutex<Instant>,
}

impl<'a> Progress<'a> {
    /// None yet, of so many files at `root`.
    pub(super) fn of(root: &'a Path, files: usize) -> Self {
        Progress { root, files, done: AtomicUsize::new(0), logged: Mutex::new(Instant::now()) }
    }

    /// Counts a file.
    pub(super) fn one_more(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(line) = self.line(done, Instant::now()) {
            tracing::info!("{line}");
        }
    }

    /// What to log at this time, if it is due: not at the end, when the result is logged.
    fn line(&self, done: usize, now: Instant) -> Option<String> {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if done == self.files || now.saturating_duration_since(*logged) < INTERVAL {
            return None;
        }
        *logged = now;
        Some(format!("{}: {done} of {} files scanned", self.root.display(), self.files))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_scan_says_every_ten_seconds_how_far_it_is() {
        let progress = Progress::of(Path::new("s3://b/set"), 100);
        let begun = *progress.logged.lock().unwrap();
        let lines: Vec<_> =
            (1..=100).map(|done| progress.line(done as usize, begun + Duration::from_secs(done))).collect();
        assert_eq!(lines.iter().flatten().count(), 9);
        assert_eq!(lines[29].as_deref(), Some("s3://b/set: 30 of 100 files scanned"));
    }
}
