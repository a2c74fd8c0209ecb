//! The program's output: results on stdout, messages on stderr. Neither may panic, whatever it is connected to.

use std::fmt::Display;
use std::io::{self, Write};

use ddpm_model::{Error, ErrorKind};
use ddpm_telemetry::fit_terminal;

/// Prints a result on stdout, and a newline.
///
/// # Errors
/// Those of [`printed`].
pub fn print(result: impl Display) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    printed(writeln!(stdout, "{result}").and_then(|()| stdout.flush()))
}

/// Prints rows of text on stdout, whose last column begins `indent` characters from the left. On a terminal, they are
/// broken to fit it.
///
/// # Errors
/// Those of [`printed`].
pub fn print_rows(rows: impl Display, indent: usize) -> Result<(), Error> {
    print(fit_terminal(&rows.to_string(), indent))
}

/// Whether a write to stdout fails the command. It does not if the reader has gone (`| head -1`), because that reader
/// has what it wanted: the rest is dropped, and the command finishes with its own exit status.
///
/// # Errors
/// Any other failed write, such as to a full disk.
pub fn printed(written: io::Result<()>) -> Result<(), Error> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let message =
                format!("stdout cannot be written: {error}. Free space there, or send the results elsewhere.");
            Err(Error::new(ErrorKind::Storage, message))
        }
        _ => Ok(()),
    }
}

/// Prints a message on stderr, if it can be written.
pub fn say(message: impl Display) {
    // One write, so that the lines of several ranks do not mix.
    let _ = io::stderr().write_all(format!("{message}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failed_write_but_one_to_a_closed_pipe_is_a_failure() {
        assert!(printed(Ok(())).is_ok());
        assert!(printed(Err(io::ErrorKind::BrokenPipe.into())).is_ok());
        let lost = printed(Err(io::ErrorKind::StorageFull.into())).unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::Storage);
        assert!(lost.to_string().starts_with("stdout cannot be written: no storage space"), "{lost}");
    }
}
