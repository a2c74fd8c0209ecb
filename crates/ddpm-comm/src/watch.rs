//! The watchdog: ends the run when a collective does not.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::abort;

/// What the rank is doing inside MPI; written by the collectives, read by the watchdog.
#[derive(Default)]
pub(crate) struct Watch(Mutex<Doing>);

#[derive(Clone, Copy, Default)]
struct Doing {
    /// Counts the collectives entered, to tell one call from the next of the same name.
    entered: u64,
    operation: Option<&'static str>,
}

impl Watch {
    pub(crate) fn enter(&self, operation: &'static str) -> Entered<'_> {
        let mut doing = self.lock();
        doing.entered += 1;
        doing.operation = Some(operation);
        Entered(self)
    }

    /// Starts the thread that aborts the run once a single collective has lasted `timeout`.
    pub(crate) fn start(self: &Arc<Self>, timeout: Duration) {
        let watch = Arc::clone(self);
        thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || watch.run(timeout))
            .expect("the system starts one more thread");
    }

    fn run(&self, timeout: Duration) -> ! {
        let tick = (timeout / 10).clamp(Duration::from_millis(10), Duration::from_secs(1));
        // Ticks are counted rather than a clock read: after the whole job was suspended and
        // resumed, the clock would blame the peers for the pause.
        let mut waited = Duration::ZERO;
        let mut last = 0;
        loop {
            thread::sleep(tick);
            let Doing { entered, operation } = *self.lock();
            match operation {
                Some(operation) if entered == last => {
                    waited += tick;
                    if waited >= timeout {
                        abort(
                            1,
                            &format!(
                                "waited {} s in {operation}: a peer is frozen or the network is \
                                 down. See what the ranks that do not report this were doing, or \
                                 raise comm.timeout_s",
                                timeout.as_secs_f64()
                            ),
                        );
                    }
                }
                _ => {
                    waited = Duration::ZERO;
                    last = entered;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Doing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks the collective as left when it goes out of scope.
pub(crate) struct Entered<'a>(&'a Watch);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.lock().operation = None;
    }
}
