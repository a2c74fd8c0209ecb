//! Giving up waiting for a store: a thread that is to end must not wait until an outage does.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use crate::unread::Unread;

/// How often a thread that waits looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

thread_local!(static STOP: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) });

/// Makes this thread's reads fail soon after `stop` is set, whatever the store does.
pub(crate) fn heed(stop: Arc<AtomicBool>) {
    STOP.set(Some(stop));
}

/// Waits for what is read of the file at `path`, or until this thread is to end.
pub(super) async fn unless_stopped<T>(
    path: &Path,
    mut content: impl Future<Output = Result<T, Unread>> + Unpin,
) -> Result<T, Unread> {
    loop {
        if let Ok(done) = timeout(LOOK, &mut content).await {
            return done;
        }
        if STOP.with_borrow(|stop| stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed))) {
            let reason = "the program was asked to stop while it waited for the store".into();
            return Err(Unread::Store { path: path.to_path_buf(), reason });
        }
    }
}
