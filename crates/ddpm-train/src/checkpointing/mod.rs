//! Checkpoints of a training run: selecting, restoring, and saving in the background.

mod lease;
mod overlooked;
mod restore;
mod retaining;
mod save;
mod saver;
mod select;
mod share;
mod snapshots;

pub use restore::restore;
pub use save::SaveEvent;
pub use saver::Saver;
pub use select::{Checkpoint, ResumeFrom, allowed_data_change, read_together, select};
