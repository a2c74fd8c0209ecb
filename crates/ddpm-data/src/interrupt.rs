//! Giving up waiting for a store: once the program was asked to stop, nobody waits for the end of an outage.

use std::cell::RefCell;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use crate::unread::Unread;

/// How often what waits looks whether it is to stop.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

thread_local!(static STOP: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) });

/// Does `work`, in which everything that reads files of an object store fails with
/// [`DataError::Stopped`](crate::DataError::Stopped) soon after `stop` is set, whatever the store does.
pub fn heeding<T>(stop: Arc<AtomicBool>, work: impl FnOnce() -> T) -> T {
    heeding_as(Some(stop), work)
}

/// Does `work`, heeding what another thread [heeds](heeded).
pub(crate) fn heeding_as<T>(stop: Option<Arc<AtomicBool>>, work: impl FnOnce() -> T) -> T {
    let _restored = Restored(STOP.replace(stop));
    work()
}

/// What this thread heeds.
pub(crate) fn heeded() -> Option<Arc<AtomicBool>> {
    STOP.with_borrow(Option::clone)
}

/// Whether this thread is to stop.
pub(crate) fn is_stopped() -> bool {
    STOP.with_borrow(|stop| stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)))
}

/// Waits for an answer of a store, or until this thread is to stop.
pub(crate) async fn unless_stopped<T>(answer: impl Future<Output = Result<T, Unread>>) -> Result<T, Unread> {
    let mut answer = pin!(answer);
    while !is_stopped() {
        if let Ok(done) = timeout(LOOK, answer.as_mut()).await {
            return done;
        }
    }
    Err(Unread::Stopped)
}

/// What the thread heeded before, also if the work panics.
struct Restored(Option<Arc<AtomicBool>>);

impl Drop for Restored {
    fn drop(&mut self) {
        STOP.set(self.0.take());
    }
}
