//! How long stores are retried in this process: as long as its configuration says, or as long as somebody waits.

use std::{sync::OnceLock, time::Duration};

/// How long the person who waits for this process gives a store; not set in a job that nobody watches.
static PATIENCE: OnceLock<Duration> = OnceLock::new();

/// Declares that somebody waits for this process. Clients that are built afterwards retry for `patience` where no
/// configuration says otherwise, report at once that they do, and do not wait any longer for a server that is silent.
/// The first call counts.
pub fn be_interactive(patience: Duration) {
    let _ = PATIENCE.set(patience);
}

/// How long to retry where no configuration says it: as long as somebody waits, and `unattended` if nobody does.
pub fn patience_or(unattended: Duration) -> Duration {
    PATIENCE.get().copied().unwrap_or(unattended)
}

/// Whether somebody waits for this process.
pub(crate) fn is_interactive() -> bool {
    PATIENCE.get().is_some()
}
