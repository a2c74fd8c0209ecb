//! The same work on many items, on all processors or on a number of threads.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::interrupt::{heeded, heeding_as};

/// The results of `work` on all items, in the order of the items. After an error no other item is begun; of several
/// errors the first item's is returned, so that it is the same for any number of threads.
pub(crate) fn map<T: Sync, R: Send, E: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    map_on(thread::available_parallelism().map_or(1, NonZero::get), items, work)
}

/// [`map`] on this many threads, of which the caller's is one: for work that waits more than it computes. All of them
/// [heed](crate::heeding) what the caller's does.
pub(crate) fn map_on<T: Sync, R: Send, E: Send>(
    threads: usize,
    items: &[T],
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let threads = threads.min(items.len());
    let (next, failed, done) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(Vec::new()));
    let stop = heeded();
    let take_part = || {
        while !failed.load(Ordering::Relaxed) {
            // Items are begun in order: whatever precedes an item that failed will be finished.
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(number) else { return };
            let result = work(item);
            failed.fetch_or(result.is_err(), Ordering::Relaxed);
            done.lock().unwrap_or_else(PoisonError::into_inner).push((number, result));
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            let stop = stop.clone();
            let helper = move || heeding_as(stop, take_part);
            // Those that cannot be started are not needed.
            let _ = thread::Builder::new().name("parallel".into()).spawn_scoped(scope, helper);
        }
        take_part();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::interrupt::{heeding, is_stopped};

    #[test]
    fn all_threads_heed_what_the_caller_does() {
        let stop = Arc::new(AtomicBool::new(true));
        let look = || map_on(4, &[(); 50], |()| Ok::<_, ()>(is_stopped())).unwrap();
        assert_eq!(heeding(Arc::clone(&stop), look), [true; 50]);
        assert_eq!(look(), [false; 50]);
        stop.store(false, Ordering::Relaxed);
        assert_eq!(heeding(stop, look), [false; 50]);
    }
}
