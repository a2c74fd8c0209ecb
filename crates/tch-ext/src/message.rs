//! Error messages of the shim.

use std::ffi::{CStr, c_char};

use tch::TchError;

unsafe extern "C" {
    fn tch_ext_free(message: *mut c_char);
}

/// A string of the shim's.
///
/// # Safety
/// `text` is a valid C string allocated by the shim, whose ownership passes to this function.
pub(crate) unsafe fn taken(text: *mut c_char) -> String {
    // SAFETY: by this function's contract the string is valid, and ours until tch_ext_free; it is not used afterwards.
    unsafe {
        let copy = CStr::from_ptr(text).to_string_lossy().into_owned();
        tch_ext_free(text);
        copy
    }
}

/// Converts the shim's message, if any, to an error.
///
/// # Safety
/// `message` is null or a string allocated by the shim, whose ownership passes to this function.
pub(crate) unsafe fn check(message: *mut c_char) -> Result<(), TchError> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: by this function's contract.
    Err(TchError::Torch(unsafe { taken(message) }))
}
