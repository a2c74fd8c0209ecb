//! The only C++ of the project: what tch does not expose of libtorch.
//!
//! Each function borrows its tensors for the call only and turns a C++ exception into [`TchError::Torch`].
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use tch::{TchError, Tensor};
use torch_sys::C_tensor;

mod checkpoint;
mod convolution;
mod gpus;
mod group_norm;
mod hooks;
mod memory;
mod profiler;
mod trouble;

pub use checkpoint::checkpoint;
pub use convolution::{allow_winograd, multiplies_bf16, processor, winograd, winograd_applies};
pub use gpus::{Gpus, NoGpu, load_cuda_backend, make_current, set_deterministic, with_f32_on_gpu};
pub use group_norm::{Activation, Normed, PerChannel, as_on_gpus, group_norm};
pub use hooks::GradHooks;
pub use memory::MemoryWatch;
pub use profiler::{Cost, CostKind, Profiler, in_range};
pub use trouble::Trouble;

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
/// Backward then accumulates into `grad`'s memory, which may be a view into a larger buffer, for as long as nobody
/// resets the gradient to "undefined": clear it with `zero_`, never with `Tensor::zero_grad`, which drops the view.
///
/// # Errors
/// `grad` differs from `param` in shape, dtype or device.
pub fn set_grad(param: &Tensor, grad: &Tensor) -> Result<(), TchError> {
    // SAFETY: both pointers come from live tensors and are used during the call only; libtorch keeps its own
    // reference to `grad`'s storage.
    unsafe { check(tch_ext_set_grad(param.as_ptr().cast_mut(), grad.as_ptr())) }
}

/// `images` `[B, C, H, W]` with the channels of a pixel adjacent in memory, the layout in which the CPU's convolutions
/// are fastest; operations downstream keep it. Shape and values are the same, and gradients flow through.
///
/// # Errors
/// The tensor has not four dimensions.
pub fn channels_last(images: &Tensor) -> Result<Tensor, TchError> {
    let mut copy = std::ptr::null_mut();
    // SAFETY: `images` is a live tensor; on success `copy` is a new tensor that nobody else owns, which from_ptr takes.
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
    /// Added to the root of the second moment.
    pub eps: f64,
}

/// The buffers that an AdamW step reads and updates; all but `step` of one shape, dtype and device.
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
    /// f32 scalar: the number of this step, counted from 1. The caller advances it.
    pub step: &'a Tensor,
}

/// One step of AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2) in a single fused pass over memory.
///
/// # Errors
/// The buffers differ in shape, dtype or device.
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

/// Lends the memory of a contiguous f32 tensor on the CPU to `body`, so that it can be reduced or copied in place.
///
/// While it is lent, `body` must leave the tensor and its views alone.
///
/// # Errors
/// The tensor is not f32, not on the CPU, not contiguous, or shares memory with one that is lent already.
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

/// Refuses a tensor whose memory is no plain run of f32 on `place`.
fn contiguous_f32(tensor: &Tensor, place: &str, there: impl Fn(tch::Device) -> bool) -> Result<(), TchError> {
    let (kind, device) = (tensor.kind(), tensor.device());
    if kind == tch::Kind::Float && there(device) && tensor.is_contiguous() {
        return Ok(());
    }
    Err(TchError::Kind(format!("a contiguous f32 tensor on {place} is needed, not {kind:?} on {device:?}")))
}

/// Memory that is lent as a slice: two tensors may share theirs, two slices must not.
struct Loan(Range<usize>);

static LOANS: Mutex<Vec<Range<usize>>> = Mutex::new(Vec::new());

impl Loan {
    fn of(memory: Range<usize>) -> Result<Self, TchError> {
        let mut loans = LOANS.lock().unwrap_or_else(PoisonError::into_inner);
        if loans.iter().any(|other| other.start < memory.end && memory.start < other.end) {
            return Err(TchError::Kind("the tensor's memory is lent already".into()));
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

/// Turns the shim's message, if any, into an error.
///
/// # Safety
/// `message` is null or a string that the shim allocated and that nobody else frees.
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
    fn memory_is_lent_in_place_and_only_if_contiguous() {
        let mut flat = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0]);
        with_f32_mut(&mut flat.narrow(0, 1, 2), |v| v.iter_mut().for_each(|v| *v *= 10.0)).unwrap();
        assert_eq!(Vec::<f32>::try_from(&flat).unwrap(), [1.0, 20.0, 30.0, 4.0]);
        let mut view = flat.narrow(0, 2, 2);
        let twice = with_f32_mut(&mut flat, |_| with_f32_mut(&mut view, |_| ()).is_err());
        assert!(twice.unwrap(), "memory was lent twice");
        assert!(with_f32_mut(&mut flat.view([2, 2]).transpose(0, 1), |_| ()).is_err());
        assert!(with_f32_mut(&mut flat.to_kind(Kind::Double), |_| ()).is_err());
    }

    #[test]
    fn a_gradient_of_another_shape_is_refused() {
        let param = Tensor::ones([2], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
        let wrong = Tensor::zeros([3], (Kind::Float, tch::Device::Cpu));
        assert!(matches!(set_grad(&param, &wrong), Err(TchError::Torch(_))));
    }
}
