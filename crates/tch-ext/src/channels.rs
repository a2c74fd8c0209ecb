//! The memory format of images.

use std::ffi::c_char;

use tch::{TchError, Tensor};
use torch_sys::C_tensor;

use crate::message::check;

unsafe extern "C" {
    fn tch_ext_channels_last(images: *const C_tensor, copy: *mut *mut C_tensor) -> *mut c_char;
}

/// Converts `images` `[B, C, H, W]` to the channels-last memory format, in which convolutions on the CPU are fastest;
/// operations downstream keep it. Shape and values are unchanged, and gradients flow through.
///
/// # Errors
/// If the tensor does not have four dimensions.
pub fn channels_last(images: &Tensor) -> Result<Tensor, TchError> {
    let mut copy = std::ptr::null_mut();
    // SAFETY: `images` is a live tensor; on success `copy` is a new tensor, whose ownership from_ptr takes.
    unsafe {
        check(tch_ext_channels_last(images.as_ptr(), &mut copy))?;
        Ok(Tensor::from_ptr(copy))
    }
}
