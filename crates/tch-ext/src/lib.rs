//! The only C++ of the project: functions of libtorch that tch does not expose.
//!
//! ```
//! use tch::{Device, Kind, Tensor};
//!
//! # fn main() -> Result<(), tch::TchError> {
//! // Two parameters whose gradients are views of one flat buffer, filled by backward.
//! let grads = Tensor::zeros([4], (Kind::Float, Device::Cpu));
//! let weight = Tensor::from_slice(&[1.0f32, 2.0, 3.0]).set_requires_grad(true);
//! let bias = Tensor::from_slice(&[0.5f32]).set_requires_grad(true);
//! tch_ext::set_grad(&weight, &grads.narrow(0, 0, 3))?;
//! tch_ext::set_grad(&bias, &grads.narrow(0, 3, 1))?;
//! (weight.square().sum(Kind::Float) + &bias).backward();
//! let mut buffer = grads;
//! tch_ext::with_f32_mut(&mut buffer, |values| assert_eq!(values, [2.0, 4.0, 6.0, 1.0]))?;
//! # Ok(())
//! # }
//! ```
//!
//! Each function borrows its tensors only for the call and converts C++ exceptions to [`TchError::Torch`].
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use tch::{TchError, Tensor};
use torch_sys::C_tensor;

mod checkpoint;
mod convolution;
mod failure;
mod gpus;
mod group_norm;
mod hooks;
mod memory_watch;
mod profiler;

pub use checkpoint::checkpoint;
pub use convolution::{allow_winograd, multiplies_bf16, processor, winograd, winograd_applies};
pub use failure::TorchFailure;
pub use gpus::{Gpus, NoGpu, load_cuda_backend, make_current, set_deterministic, with_f32_on_gpu};
pub use group_norm::{Activation, Normed, PerChannel, composite_group_norm, group_norm};
pub use hooks::GradHooks;
pub use memory_watch::MemoryWatch;
pub use profiler::{Cost, CostKind, Profiler, in_range};

unsafe extern "C" {
    fn tch_ext_free(message: *mut c_char);
    fn tch_ext_set_grad(param: *mut C_tensor, grad: *const C_tensor) -> *mut c_char;
    fn tch_ext_channels_last(images: *const C_tensor, copy: *mut *mut C_tensor) -> *mut c_char;
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

/// Makes `grad` the gradient tensor of the leaf `param`.
///
/// Backward then accumulates into `grad`'s memory, which may be a view of a larger buffer, until the gradient is reset
/// to "undefined": clear it with `zero_`, never with `Tensor::zero_grad`, which drops the view.
///
/// # Errors
/// If `grad` differs from `param` in shape, dtype or device.
pub fn set_grad(param: &Tensor, grad: &Tensor) -> Result<(), TchError> {
    // SAFETY: both pointers come from live tensors and are used during the call only; libtorch keeps its own
    // reference to `grad`'s storage.
    unsafe { check(tch_ext_set_grad(param.as_ptr().cast_mut(), grad.as_ptr())) }
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

/// Passes the memory of a contiguous f32 tensor on the CPU to `body`, to be reduced or copied in place.
///
/// `body` must not access the tensor or its views in any other way.
///
/// # Errors
/// If the tensor is not f32, not on the CPU, not contiguous, or shares memory with one that is already borrowed.
pub fn with_f32_mut<R>(tensor: &mut Tensor, body: impl FnOnce(&mut [f32]) -> R) -> Result<R, TchError> {
    contiguous_f32(tensor, "the CPU", |device| device == tch::Device::Cpu)?;
    let len = tensor.numel();
    if len == 0 {
        return Ok(body(&mut []));
    }
    let first = tensor.data_ptr().cast::<f32>();
    let loan = Loan::of(first as usize..first as usize + len * size_of::<f32>())?;
    // SAFETY: the tensor is contiguous, so its storage holds `len` floats from data_ptr on; it lives as long as the
    // borrow; and the loan is the only one of this memory, so no other slice overlaps it.
    let values = unsafe { std::slice::from_raw_parts_mut(first, len) };
    let result = body(values);
    drop(loan);
    Ok(result)
}

/// Refuses a tensor that is not contiguous f32 on `place`.
fn contiguous_f32(tensor: &Tensor, place: &str, is_there: impl Fn(tch::Device) -> bool) -> Result<(), TchError> {
    let (kind, device) = (tensor.kind(), tensor.device());
    if kind == tch::Kind::Float && is_there(device) && tensor.is_contiguous() {
        return Ok(());
    }
    Err(TchError::Kind(format!("a contiguous f32 tensor on {place} is required, not {kind:?} on {device:?}")))
}

/// Memory that is borrowed as a slice: two tensors may share memory, two slices must not.
struct Loan(Range<usize>);

static LOANS: Mutex<Vec<Range<usize>>> = Mutex::new(Vec::new());

impl Loan {
    fn of(memory: Range<usize>) -> Result<Self, TchError> {
        let mut loans = LOANS.lock().unwrap_or_else(PoisonError::into_inner);
        if loans.iter().any(|other| other.start < memory.end && memory.start < other.end) {
            return Err(TchError::Kind("the tensor's memory is already borrowed".into()));
        }
        loans.push(memory.clone());
        Ok(Self(memory))
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        LOANS.lock().unwrap_or_else(PoisonError::into_inner).retain(|memory| *memory != self.0);
    }
}

/// Converts the shim's message, if any, to an error.
///
/// # Safety
/// `message` is null or a string allocated by the shim, whose ownership passes to this function.
unsafe fn check(message: *mut c_char) -> Result<(), TchError> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: by this function's contract `message` is a valid C string, owned by us until tch_ext_free.
    let text = unsafe { CStr::from_ptr(message).to_string_lossy().into_owned() };
    // SAFETY: as above; it is not used afterwards.
    unsafe { tch_ext_free(message) };
    Err(TchError::Torch(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn backward_accumulates_into_the_view() {
        let flat = Tensor::zeros([6], (Kind::Float, tch::Device::Cpu));
        let param = Tensor::ones([2, 2], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
        set_grad(&param, &flat.narrow(0, 1, 4).view([2, 2])).unwrap();
        for _ in 0..2 {
            (&param * 3.0).sum(Kind::Float).backward();
        }
        assert_eq!(Vec::<f32>::try_from(&flat).unwrap(), [0.0, 6.0, 6.0, 6.0, 6.0, 0.0]);
    }

    #[test]
    fn memory_is_borrowed_in_place_and_only_if_contiguous() {
        let mut flat = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0]);
        with_f32_mut(&mut flat.narrow(0, 1, 2), |v| v.iter_mut().for_each(|v| *v *= 10.0)).unwrap();
        assert_eq!(Vec::<f32>::try_from(&flat).unwrap(), [1.0, 20.0, 30.0, 4.0]);
        let mut view = flat.narrow(0, 2, 2);
        let twice = with_f32_mut(&mut flat, |_| with_f32_mut(&mut view, |_| ()).is_err());
        assert!(twice.unwrap(), "memory was borrowed twice");
        assert!(with_f32_mut(&mut flat.view([2, 2]).transpose(0, 1), |_| ()).is_err());
        assert!(with_f32_mut(&mut flat.to_kind(Kind::Double), |_| ()).is_err());
    }

    #[test]
    fn a_gradient_with_a_different_shape_is_refused() {
        let param = Tensor::ones([2], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
        let wrong = Tensor::zeros([3], (Kind::Float, tch::Device::Cpu));
        assert!(matches!(set_grad(&param, &wrong), Err(TchError::Torch(_))));
    }
}
