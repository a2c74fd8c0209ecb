//! Requests to stop: Ctrl-C, SIGTERM and SIGUSR1 ask for a save and an end; a second Ctrl-C ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;

use crate::failure::Failure;

/// Whether this process has been asked to stop.
#[derive(Clone, Debug)]
pub struct StopRequest(Arc<AtomicBool>);

impl StopRequest {
    /// Starts to listen.
    pub fn listen() -> Result<Self, Failure> {
        let asked = Arc::new(AtomicBool::new(false));
        let unable = |e| Failure::internal(format!("cannot listen for signals: {e}"));
        // The order matters: the first Ctrl-C finds the flag unset, sets it, and only the second one shuts down.
        flag::register_conditional_shutdown(SIGINT, 128 + SIGINT, Arc::clone(&asked)).map_err(unable)?;
        for signal in [SIGINT, SIGTERM, SIGUSR1] {
            flag::register(signal, Arc::clone(&asked)).map_err(unable)?;
        }
        Ok(Self(asked))
    }

    /// Whether a stop was asked for.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
