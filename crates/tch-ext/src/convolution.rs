//! 3x3 convolutions by Winograd's algorithm, which is often faster than libtorch's own.

use std::ffi::{CStr, c_char, c_int};
use std::ptr::{null, null_mut};

use tch::{Kind, TchError, Tensor};
use torch_sys::C_tensor;

use crate::message::check;

unsafe extern "C" {
    fn tch_ext_winograd(
        x: *const C_tensor,
        weights: *const C_tensor,
        bias: *const C_tensor,
        y: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn tch_ext_winograd_planes_for(x: *const C_tensor, input: i64, output: i64) -> c_int;
    fn tch_ext_winograd_planes(weights: *const C_tensor, bf16: bool, planes: *mut *mut C_tensor) -> *mut c_char;
    fn tch_ext_winograd_with_planes(
        x: *const C_tensor,
        planes: *const C_tensor,
        bias: *const C_tensor,
        plus: *const C_tensor,
        y: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn tch_ext_allow_winograd(allow: bool);
    fn tch_ext_multiplies_bf16() -> bool;
    fn tch_ext_processor() -> *const c_char;
}

/// The convolution of `x` `[B, in, H, W]` with `weights` `[out, in, 3, 3]` and `bias` `[out]` at stride 1 and padding
/// 1, with its gradients, by F(4x4, 3x3) (Lavin & Gray 2015, arXiv 1509.09308): four times fewer multiplications than
/// direct convolution, at some six times its rounding error. On the CPU only, with channels in multiples of 16; weights
/// are f32, x is f32 or bf16, and the result has the type of x, channels last. For x in bf16, what is multiplied is rounded
/// to bf16 if [`winograd_planes_for`] says so, except for the gradient of the weights; sums are f32. The result does not
/// depend on the number of threads. Second-order gradients are not supported.
///
/// # Errors
/// If shapes, types or devices are not supported, or there is not enough memory.
pub fn winograd(x: &Tensor, weights: &Tensor, bias: &Tensor) -> Result<Tensor, TchError> {
    let mut y = null_mut();
    // SAFETY: all inputs are live tensors; on success `y` is a new tensor, whose ownership from_ptr takes.
    unsafe {
        check(tch_ext_winograd(x.as_ptr(), weights.as_ptr(), bias.as_ptr(), &mut y))?;
        Ok(Tensor::from_ptr(y))
    }
}

/// The kind of [`winograd_planes`] with which a convolution of `x` from `input` to `output` channels is fastest; none if
/// [`winograd`] does not support it or another way is faster, as in bf16 on processors with a matrix unit for it.
pub fn winograd_planes_for(x: &Tensor, input: i64, output: i64) -> Option<Kind> {
    // SAFETY: `x` is a live tensor, of which only properties are read.
    match unsafe { tch_ext_winograd_planes_for(x.as_ptr(), input, output) } {
        1 => Some(Kind::Float),
        2 => Some(Kind::BFloat16),
        _ => None,
    }
}

/// The f32 `weights` `[out, in, 3, 3]` as Winograd's algorithm multiplies them: transformed once, for many calls of
/// [`winograd_with_planes`]. They take four times the weights' memory in f32, half of that in bf16.
///
/// # Errors
/// If shape, type or device are not supported, the processor has no instructions for planes in bf16, or there is not
/// enough memory.
pub fn winograd_planes(weights: &Tensor, kind: Kind) -> Result<Tensor, TchError> {
    let mut planes = null_mut();
    // SAFETY: `weights` is a live tensor; on success `planes` is a new tensor, whose ownership from_ptr takes.
    unsafe {
        check(tch_ext_winograd_planes(weights.as_ptr(), kind == Kind::BFloat16, &mut planes))?;
        Ok(Tensor::from_ptr(planes))
    }
}

/// [`winograd`] without gradients, with weights that are transformed already, plus `plus` of the shape and type of the
/// result. With planes of the kind of [`winograd_planes_for`] the result is that of `winograd` and an addition, bit for bit
/// for `x` in f32. Planes in bf16 are for `x` in bf16: what is multiplied is rounded to bf16, sums are f32.
///
/// # Errors
/// If shapes, types or devices are not supported, or there is not enough memory.
pub fn winograd_with_planes(
    x: &Tensor,
    planes: &Tensor,
    bias: &Tensor,
    plus: Option<&Tensor>,
) -> Result<Tensor, TchError> {
    let (mut y, plus) = (null_mut(), plus.map_or(null(), Tensor::as_ptr));
    // SAFETY: all inputs are live tensors, `plus` or null; on success `y` is a new tensor, whose ownership from_ptr takes.
    unsafe {
        check(tch_ext_winograd_with_planes(x.as_ptr(), planes.as_ptr(), bias.as_ptr(), plus, &mut y))?;
        Ok(Tensor::from_ptr(y))
    }
}

/// Allows or forbids Winograd convolutions in the whole process: if forbidden, [`winograd_planes_for`] returns none. They
/// are allowed by default.
pub fn allow_winograd(allow: bool) {
    // SAFETY: sets an atomic flag.
    unsafe { tch_ext_allow_winograd(allow) }
}

/// The instruction set of this crate's kernels, `avx512`, `avx2` or `any`: the best that the CPU supports and
/// `ATEN_CPU_CAPABILITY`, libtorch's own setting, allows.
pub fn processor() -> &'static str {
    // SAFETY: the shim returns a zero-terminated constant.
    let name = unsafe { CStr::from_ptr(tch_ext_processor()) };
    name.to_str().expect("names are ASCII")
}

/// Whether the CPU has instructions for bf16 and libtorch may use them: `ATEN_CPU_CAPABILITY` and `ONEDNN_MAX_CPU_ISA`
/// can forbid it. Without them libtorch still computes in bf16, about ten times slower than in f32.
pub fn multiplies_bf16() -> bool {
    // SAFETY: reads the processor's features and the environment, once.
    unsafe { tch_ext_multiplies_bf16() }
}
