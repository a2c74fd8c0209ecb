//! Error messages of the shim.

use std::ffi::{CStr, c_char};

use tch::TchError;

unsafe extern "C" {
    fn tch_ext_free(message: *mut c_char);
}

/// Converts the shim's message, if any, to an error.
///
/// # Safety
/// `message` is null or a string allocated by the shim, whose ownership passes to this function.
pub(crate) unsafe fn check(message: *mut c_char) -> Result<(), TchError> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: by this function's contract `message` is a valid C string, owned by us until tch_ext_free.
    let text = unsafe { CStr::from_ptr(message).to_string_lossy().into_owned() };
    // SAFETY: as above; it is not used afterwards.
    unsafe { tch_ext_free(message) };
    Err(TchError::Torch(text))
}
