//! The watchdog: ends the run when a collective does not.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::abort;

/// What the rank is doing with others; written by the collectives, read by the watchdog.
///
/// Several at once: a collective on the GPU goes on while the host takes part in the next.
#[derive(Default)]
pub(crate) struct Watch(Mutex<Doing>);

#[derive(Default)]
struct Doing {
    /// Numbers the collectives, to tell one call from the next of the same name.
    entered: u64,
    operations: Vec<Operation>,
}

struct Operation {
    number: u64,
    name: &'static str,
    /// `None` until the watchdog has first seen it.
    waited: Option<Duration>,
}

impl Watch {
    pub(crate) fn enter(&self, name: &'static str) -> Entered<'_> {
        let mut doing = self.lock();
        doing.entered += 1;
        let number = doing.entered;
        doing.operations.push(Operation { number, name, waited: None });
        Entered { watch: self, number }
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
        loop {
            thread::sleep(tick);
            if let Some(name) = self.overdue(tick, timeout) {
                abort(
                    1,
                    &format!(
                        "waited {} s in {name}: a peer is frozen or the network is down. See what the ranks that do \
                         not report this were doing, or raise comm.timeout_s",
                        timeout.as_secs_f64()
                    ),
                );
            }
        }
    }

    /// Counts one more tick for every operation; returns one that has lasted `timeout`.
    ///
    /// Ticks are counted rather than a clock read: after the whole job was suspended and resumed, the clock would blame
    /// the peers for the pause.
    fn overdue(&self, tick: Duration, timeout: Duration) -> Option<&'static str> {
        let mut doing = self.lock();
        for operation in &mut doing.operations {
            let waited = operation.waited.map_or(Duration::ZERO, |waited| waited + tick);
            operation.waited = Some(waited);
            if waited >= timeout {
                return Some(operation.name);
            }
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, Doing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks the collective as left when it goes out of scope.
pub(crate) struct Entered<'a> {
    watch: &'a Watch,
    number: u64,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.watch.lock().operations.retain(|operation| operation.number != self.number);
    }
}
