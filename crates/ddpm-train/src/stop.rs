//! The request to stop: save, and end before the next step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ddpm_comm::{Agreed, Collective, agree};
use ddpm_model::{Error, ErrorKind, Failure};

/// Whether this process has been asked to stop. Clones share the answer, so one may go to a signal handler's thread.
#[derive(Clone, Debug, Default)]
pub struct StopRequest(Arc<AtomicBool>);

impl StopRequest {
    /// Asks for a stop.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether a stop was requested on this rank.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether a stop was requested on any rank; the same answer on every rank.
    pub fn requested_anywhere(&self, comm: &dyn Collective) -> bool {
        agree::any(comm, self.requested())
    }

    /// Ends a run that is asked to stop before its first step, on every rank alike.
    pub(crate) fn check_before_start(&self, comm: &dyn Collective) -> Result<(), Failure> {
        if self.requested_anywhere(comm) {
            let message = "stopped on request before the first step; the same command starts again";
            return Err(Agreed::known_to_all(Error::new(ErrorKind::Stopped, message)).into());
        }
        Ok(())
    }
}
