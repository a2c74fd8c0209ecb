//! What a run tells those who watch it: log lines, progress, metrics, TensorBoard events, pictures, charts.
//!
//! Watching never stops training. An output that fails during a run (a full disk, a lost mount) is warned of
//! once and then left alone; only pictures asked for by name return their errors.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

mod axis;
mod canvas;
mod chart;
mod grid;
mod heatmap;
mod metrics;
mod picture;
mod progress;
mod tensorboard;

pub use chart::{Chart, Series, loss_by_timestep, panel};
pub use grid::{Scale, from_unit_floats, grid};
pub use heatmap::HeatMap;
pub use metrics::{Accuracy, Metrics, MetricsLog, peak_rss_mb, read_metrics, rss_mb};
pub use picture::Picture;
pub use progress::{Progress, init_logging};
pub use tensorboard::TensorBoard;

/// Puts `bytes` at `path` in one step, creating its parents: a reader or a crash meets the old file or the new
/// one, never a part.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    });
    if written.is_err() {
        // It may be half written, and on a full disk its space is wanted.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// An output that training can do without: its first failure is warned of, and closes it.
struct BestEffort<W> {
    path: PathBuf,
    output: Option<W>,
}

impl<W> BestEffort<W> {
    fn new(path: &Path, opened: io::Result<W>) -> Self {
        let mut this = Self { path: path.to_owned(), output: None };
        match opened {
            Ok(output) => this.output = Some(output),
            Err(error) => this.close(&error),
        }
        this
    }

    fn attempt(&mut self, write: impl FnOnce(&mut W) -> io::Result<()>) {
        if let Some(Err(error)) = self.output.as_mut().map(write) {
            self.close(&error);
        }
    }

    fn close(&mut self, error: &io::Error) {
        self.output = None;
        tracing::warn!(
            "{} cannot be written ({error}); the run goes on without it. \
             Free space or mend the permissions there, then resume to have it again.",
            self.path.display()
        );
    }
}

#[cfg(test)]
mod testing {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    /// A log kept in memory.
    #[derive(Clone, Default)]
    pub struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        pub fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The log lines that `work` writes.
    pub fn logged(work: impl FnOnce()) -> String {
        let log = Log::default();
        let sink = log.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || sink.clone()).finish();
        tracing::subscriber::with_default(subscriber, work);
        log.text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atomic_write_creates_parents_and_leaves_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c.txt");
        write_atomic(&path, b"old").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_output_warns_once() {
        let warnings = testing::logged(|| {
            let mut output = BestEffort::new(Path::new("/dev/full"), File::create("/dev/full"));
            for _ in 0..3 {
                output.attempt(|file| file.write_all(b"x"));
            }
            let mut unopened = BestEffort::new(Path::new("/nowhere"), File::create("/nowhere/at/all"));
            unopened.attempt(|file| file.write_all(b"x"));
        });
        assert_eq!(warnings.matches("/dev/full cannot be written").count(), 1);
        assert_eq!(warnings.matches("/nowhere cannot be written").count(), 1);
    }
}
