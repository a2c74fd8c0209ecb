//! `checkpoints …`, as typed.

use clap::Subcommand;

use super::{address, at_least_one};

/// `checkpoints …`; URI is a run directory, a folder of checkpoints, or an address such as `s3://bucket/run`.
#[derive(Debug, Subcommand)]
pub enum CheckpointsCommand {
    /// One line per checkpoint, newest first.
    List {
        /// The store.
        #[arg(value_parser = address)]
        uri: String,
    },
    /// What a checkpoint holds.
    Show {
        /// The store.
        #[arg(value_parser = address)]
        uri: String,
        /// Which one; by default the newest.
        #[arg(long)]
        step: Option<u64>,
    },
    /// Read every byte and compare its hash; exit status 4 if something is damaged.
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
        /// Keep the newest N that are whole.
        #[arg(long, default_value = "2", value_parser = at_least_one::<usize>)]
        keep_last: usize,
        /// Keep every step that this divides, too.
        #[arg(long)]
        keep_every: Option<u64>,
        /// Only say what would go.
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
        /// Even if no other checkpoint is left to go on from.
        #[arg(long)]
        force: bool,
    },
    /// Copy a checkpoint to another store, verifying it on the way and there; refused where another run's are, or while a
    /// job writes there.
    Copy {
        /// The store.
        #[arg(value_parser = address)]
        uri: String,
        /// The other store; of a run directory, that run's.
        #[arg(long, value_name = "URI", value_parser = address)]
        to: String,
        /// Which one; by default the newest.
        #[arg(long)]
        step: Option<u64>,
    },
    /// Free a store that a killed job still holds. A job that lives loses it: it ends, and saves nothing more there.
    Unlock {
        /// The store.
        #[arg(value_parser = address)]
        uri: String,
        /// Even if the lease has not run out yet, or cannot be read.
        #[arg(long)]
        force: bool,
    },
}
