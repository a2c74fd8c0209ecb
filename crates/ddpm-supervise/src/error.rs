//! Why a job cannot be supervised: one sentence about the problem, and one about the fix.

use std::io;
use std::path::PathBuf;

/// Why a job cannot be supervised.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The hostfile cannot be read.
    #[error("cannot read the hosts in {}: {source}. Check that it is a readable text file.", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line of the hostfile cannot be used.
    #[error("{} line {line}: {fault}.", .file.display())]
    Hosts {
        /// The file.
        file: PathBuf,
        /// The number of the line, from 1.
        line: usize,
        /// What is wrong, and the line that would be right.
        fault: String,
    },
    /// The hostfile is empty.
    #[error("{} names no host. Write one on each line, as NAME slots=N.", .file.display())]
    NoHosts {
        /// The file.
        file: PathBuf,
    },
    /// The command does not take the number of ranks and the hosts, or takes them where there are none.
    #[error("{0}.")]
    Placeholders(&'static str),
    /// The job cannot run on any number of ranks for which there is room.
    #[error(
        "no number of ranks from {least} to {slots}, the slots of all hosts, divides train.global_batch = {batch} as \
         the configuration demands. Choose another train.global_batch, lower --min-ranks, or give the hosts more slots."
    )]
    NoSize {
        /// The smallest number that is allowed.
        least: usize,
        /// The slots of all hosts.
        slots: usize,
        /// The global batch.
        batch: usize,
    },
    /// The command cannot be started.
    #[error("{program} cannot be started: {source}. Check the command after --.")]
    Start {
        /// The first word of the command.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// There is nowhere to put the stop file and the hostfile.
    #[error("a temporary file cannot be written: {0}. Free space there, or set TMPDIR to another folder.")]
    Scratch(io::Error),
    /// The file for events cannot be opened.
    #[error("events cannot be written to {}: {source}. Name another file with --events.", .file.display())]
    Events {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
}
