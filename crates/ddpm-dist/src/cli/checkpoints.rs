//! The arguments of `checkpoints …`.

use clap::Subcommand;

use super::numbers::at_least_one;
use super::paths::address;

/// `checkpoints …`; URI is a run directory, a folder of checkpoints, or an address such as `s3://bucket/run`.
#[derive(Debug, Subcommand)]
pub enum CheckpointsCommand {
    /// List the checkpoints, newest first.
    List {
        /// The store.
        #[arg(value_parser = address)]
        uri: String,
    },
    /// Print the contents of a checkpoint.
    Show {
        /// The store.
        #[arg(value_parser = address)]
        uri: String,
        /// Which one; by default the newest.
        #[arg(long)]
        step: Option<u64>,
    },
    /// Read every byte and verify the hashes; exit status 4 if something is damaged.
    Verify {
        /// The store.
        #[arg(value_parser = address)]
        uri: String,
        /// Only this one.
        #[arg(long)]
        step: Option<u64>,
    },
    /// Delete old checkpoints; refused while a job writes to the store.
    Prune {
        /// The store.
        #[arg(value_parser = address)]
        uri: String,
        /// Keep the newest N valid ones.
        #[arg(long, default_value = "2", value_parser = at_least_one::<usize>)]
        keep_last: usize,
        /// Also keep every step that is a multiple of this.
        #[arg(long)]
        keep_every: Option<u64>,
        /// Only print what would be deleted.
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete one checkpoint, damaged or not; refused while a job writes to the store.
    Drop {
        /// The store.
        #[arg(value_parser = address)]
        uri: String,
        /// Which one.
        #[arg(long)]
        step: u64,
        /// Delete it even if no other checkpoint is left to resume from.
        #[arg(long)]
        force: bool,
    },
    /// Copy a checkpoint to another store, verifying the source and the copy; refused if that store has another run's
    /// checkpoints, or while a job writes to it.
    Copy {
        /// The store.
        #[arg(value_parser = address)]
        uri: String,
        /// The store to copy to; for a run directory, the store of that run.
        #[arg(long, value_name = "URI", value_parser = address)]
        to: String,
        /// Which one; by default the newest.
        #[arg(long)]
        step: Option<u64>,
    },
    /// Free a store that a killed job still holds. If the job is in fact alive it loses the store: it ends, and saves
    /// nothing more there.
    Unlock {
        /// The store.
        #[arg(value_parser = address)]
        uri: String,
        /// Free it even if the lease has not expired yet, or cannot be read.
        #[arg(long)]
        force: bool,
    },
}
