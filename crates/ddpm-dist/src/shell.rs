//! What a shell gets from the program: completions, and man pages. Neither needs other ranks.

use std::fs;
use std::path::Path;

use clap_complete::Shell;
use ddpm_model::Error;

use crate::cli::{Command, command};
use crate::output::{print, say};

/// Runs the command, if it is one of these.
pub fn run(given: &Command) -> Option<Result<(), Error>> {
    match given {
        Command::Completions { shell } => Some(complete(*shell)),
        Command::Man { folder } => Some(write_pages(folder)),
        _ => None,
    }
}

fn complete(shell: Shell) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "ddpm-dist", &mut script);
    print(String::from_utf8_lossy(&script).trim_end())
}

/// Writes a page for the program and one for each of its commands.
fn write_pages(folder: &Path) -> Result<(), Error> {
    let written = fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(command(), folder));
    written.map_err(|e| Error::file(folder, e))?;
    say(format_args!("wrote the manual; to read it: man {}", folder.join("ddpm-dist.1").display()));
    Ok(())
}
