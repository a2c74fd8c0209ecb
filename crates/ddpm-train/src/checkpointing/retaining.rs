//! Deleting old checkpoints in the background, at most one deletion at a time.

use ddpm_checkpoint::{Lease, Pending, Retention, RetentionReport, Store};

/// The deletions in one store.
#[derive(Default)]
pub(super) struct Retaining {
    running: Option<Pending<RetentionReport>>,
    due: Option<Retention>,
}

impl Retaining {
    /// Asks for a deletion by this rule; it begins when the running one is over.
    pub(super) fn ask(&mut self, rule: Retention) {
        self.due = Some(rule);
    }

    /// Collects the result of a finished deletion and starts the next one if it is due. A lease lost to another run is
    /// noticed at the next check of the lease; the deletion after the next commit makes up for any other failure.
    pub(super) fn advance(&mut self, store: &Store, lease: Option<&Lease>) {
        if let Some(done) = self.running.as_mut().and_then(Pending::poll) {
            self.running = None;
            if let Err(error) = done {
                tracing::warn!("older checkpoints in {} were not deleted: {error}", store.uri());
            }
        }
        if self.running.is_none()
            && let Some(rule) = self.due.take()
        {
            self.running = Some(store.start_retention(rule, lease));
        }
    }

    /// Whether a deletion is running or due.
    pub(super) fn is_busy(&self) -> bool {
        self.running.is_some() || self.due.is_some()
    }

    /// Stops the running deletion between two objects.
    pub(super) fn stop(&mut self) {
        *self = Self::default();
    }
}
