//! Calls of decoders that panic on damaged input.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local!(static GUARDED: Cell<bool> = const { Cell::new(false) });

/// Whether this thread calls such a decoder: a panic then only means that a file is damaged, which is reported like any
/// other damage. A panic hook should ignore it.
pub fn is_guarded() -> bool {
    GUARDED.get()
}

/// Runs `decode`; `None` if it panics.
pub(crate) fn guarded<T>(decode: impl FnOnce() -> T) -> Option<T> {
    let before = GUARDED.replace(true);
    let decoded = catch_unwind(AssertUnwindSafe(decode));
    GUARDED.set(before);
    decoded.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_no_value() {
        assert_eq!(guarded(|| (is_guarded(), 7)), Some((true, 7)));
        assert_eq!(guarded(|| -> u32 { panic!("damaged") }), None);
        assert!(!is_guarded());
    }
}
