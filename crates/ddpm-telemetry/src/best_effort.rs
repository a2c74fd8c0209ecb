//! Outputs that training can do without.

use std::io;
use std::path::{Path, PathBuf};

/// An output that training can do without: the first failure logs a warning and closes it.
pub(crate) struct BestEffort<W> {
    path: PathBuf,
    output: Option<W>,
}

impl<W> BestEffort<W> {
    /// Wraps the result of opening the output.
    pub(crate) fn new(path: &Path, opened: io::Result<W>) -> Self {
        let mut this = Self { path: path.to_owned(), output: None };
        match opened {
            Ok(output) => this.output = Some(output),
            Err(error) => this.close(&error),
        }
        this
    }

    /// Writes, unless the output has failed before.
    pub(crate) fn attempt(&mut self, write: impl FnOnce(&mut W) -> io::Result<()>) {
        if let Some(Err(error)) = self.output.as_mut().map(write) {
            self.close(&error);
        }
    }

    fn close(&mut self, error: &io::Error) {
        self.output = None;
        tracing::warn!(
            "{} cannot be written ({error}); the run continues without it. \
             Free space or fix the permissions there, then resume the run to reopen it.",
            self.path.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;
    use crate::testing;

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
