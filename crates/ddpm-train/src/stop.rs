//! The request to stop: the run saves its state and ends before the next step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ddpm_comm::{Agreed, Collective, agree};
use ddpm_model::{Error, ErrorKind, Failure};

/// A flag that records whether this process was asked to stop. Clones share the flag, so a signal handler's thread
/// can hold one.
#[derive(Clone, Debug, Default)]
pub struct StopRequest(Arc<AtomicBool>);

impl StopRequest {
    /// Requests a stop.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether a stop was requested on this rank.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Does `work`, in which waiting for the store of a data set fails with [`ErrorKind::Stopped`] soon after a
    /// request: a store that does not respond is retried for minutes.
    pub(crate) fn heeded<T>(&self, work: impl FnOnce() -> T) -> T {
        ddpm_data::heeding(Arc::clone(&self.0), work)
    }

    /// Whether a stop was requested on any rank; the same answer on every rank.
    pub fn requested_anywhere(&self, comm: &dyn Collective) -> bool {
        agree::any(comm, self.requested())
    }

    /// Fails on every rank if any rank was asked to stop before the first step.
    pub(crate) fn check_before_start(&self, comm: &dyn Collective) -> Result<(), Failure> {
        if self.requested_anywhere(comm) {
            let message = "stopped on request before the first step; the same command starts again";
            return Err(Agreed::known_to_all(Error::new(ErrorKind::Stopped, message)).into());
        }
        Ok(())
    }
}
