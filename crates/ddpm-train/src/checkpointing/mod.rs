//! Checkpoints of a training run: selecting, restoring, and saving in the background.

mod lease;
mod restore;
mod saver;
mod select;
mod unseen;

pub use restore::restore;
pub use saver::{SaveEvent, Saver};
pub use select::{Checkpoint, ResumeFrom, allows_other_data, read_together, select};
