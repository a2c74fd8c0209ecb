//! AdamW in one pass over memory.

use std::ffi::c_char;

use tch::{TchError, Tensor};
use torch_sys::C_tensor;

use crate::message::check;

unsafe extern "C" {
    fn tch_ext_fused_adamw(
        param: *mut C_tensor,
        grad: *mut C_tensor,
        exp_avg: *mut C_tensor,
        exp_avg_sq: *mut C_tensor,
        step: *mut C_tensor,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
    ) -> *mut c_char;
}

/// Hyper-parameters of one AdamW step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWOptions {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay rates of the first and second moment.
    pub betas: [f64; 2],
    /// Decoupled weight decay; the parameter shrinks by `lr * weight_decay`.
    pub weight_decay: f64,
    /// Added to the square root of the second moment.
    pub eps: f64,
}

/// The buffers of an AdamW step; all but `step` have the same shape, dtype and device.
#[derive(Debug)]
pub struct AdamWBuffers<'a> {
    /// Updated in place.
    pub param: &'a Tensor,
    /// Read.
    pub grad: &'a Tensor,
    /// First moment, updated in place.
    pub exp_avg: &'a Tensor,
    /// Second moment, updated in place.
    pub exp_avg_sq: &'a Tensor,
    /// f32 scalar: the number of this step, counted from 1. The caller increments it.
    pub step: &'a Tensor,
}

/// One step of AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2) in a single fused pass over memory.
///
/// # Errors
/// If the buffers differ in shape, dtype or device.
pub fn fused_adamw(buffers: &AdamWBuffers<'_>, options: AdamWOptions) -> Result<(), TchError> {
    let AdamWOptions { lr, betas: [beta1, beta2], weight_decay, eps } = options;
    // SAFETY: all pointers come from live tensors and are used during the call only.
    unsafe {
        check(tch_ext_fused_adamw(
            buffers.param.as_ptr().cast_mut(),
            buffers.grad.as_ptr().cast_mut(),
            buffers.exp_avg.as_ptr().cast_mut(),
            buffers.exp_avg_sq.as_ptr().cast_mut(),
            buffers.step.as_ptr().cast_mut(),
            lr,
            beta1,
            beta2,
            weight_decay,
            eps,
        ))
    }
}
