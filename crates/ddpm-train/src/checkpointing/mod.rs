//! Checkpoints of a training: selected, restored, and saved behind it.

mod lease;
mod restore;
mod saver;
mod select;
mod unseen;

pub use restore::restore;
pub use saver::{SaveEvent, Saver};
pub use select::{Checkpoint, ResumeFrom, allows_other_data, read_together, select};
