//! Requests to stop: Ctrl-C, SIGTERM, a closed terminal and SIGUSR1 ask for a save and an end; a second one ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
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
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGUSR1] {
            // The order matters: the first request finds the flag unset, sets it, and only a second one shuts down.
            // SIGUSR1 may come from several who ask for the same.
            if signal != SIGUSR1 {
                flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked)).map_err(unable)?;
            }
            flag::register(signal, Arc::clone(&asked)).map_err(unable)?;
        }
        Ok(Self(asked))
    }

    /// For commands that have nothing to save: any request ends the process with `code`.
    pub fn end_at_once(code: i32) -> Result<(), Failure> {
        let always = Arc::new(AtomicBool::new(true));
        for signal in [SIGTERM, SIGHUP, SIGUSR1] {
            flag::register_conditional_shutdown(signal, code, Arc::clone(&always))
                .map_err(|e| Failure::internal(format!("cannot listen for signals: {e}")))?;
        }
        Ok(())
    }

    /// Whether a stop was asked for.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
