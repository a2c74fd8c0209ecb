//! Dropping what the shim owned.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Drops a `T` that the shim was given by [`Box::into_raw`] as the context of a function. The shim calls this once, and
/// does not use the context afterwards.
pub(crate) extern "C" fn release<T>(context: *mut c_void) {
    // SAFETY: as above.
    let owned = unsafe { Box::from_raw(context.cast::<T>()) };
    // Dropping the captures of a closure may panic.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(owned)));
}
