//! The order of images in memory.

use std::ffi::c_char;

use tch::{TchError, Tensor};
use torch_sys::C_tensor;

use crate::message::check;

unsafe extern "C" {
    fn tch_ext_channels_last(images: *const C_tensor, copy: *mut *mut C_tensor) -> *mut c_char;
}

/// `images` `[B, C, H, W]` with the channels of a pixel adjacent in memory, the layout in which the CPU's convolutions
/// are fastest; operations downstream keep it. Shape and values are the same, and gradients flow through.
///
/// # Errors
/// The tensor has not four dimensions.
pub fn channels_last(images: &Tensor) -> Result<Tensor, TchError> {
    let mut copy = std::ptr::null_mut();
    // SAFETY: `images` is a live tensor; on success `copy` is a new tensor without another owner, which from_ptr takes.
    unsafe {
        check(tch_ext_channels_last(images.as_ptr(), &mut copy))?;
        Ok(Tensor::from_ptr(copy))
    }
}
