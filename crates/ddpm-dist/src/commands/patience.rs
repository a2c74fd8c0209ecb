//! How long ranks wait for each other.

use std::time::Duration;

/// How long a rank waits for another at most outside of training: enough for drawing or encoding one batch more, or for
/// reading the shards of a checkpoint.
pub const PATIENCE: Duration = Duration::from_secs(3600);
