//! 3x3 convolutions by Winograd's algorithm, which is often faster than libtorch's own.

use std::ffi::{CStr, c_char};
use std::ptr::null_mut;

use tch::{TchError, Tensor};
use torch_sys::C_tensor;

use crate::message::check;

unsafe extern "C" {
    fn tch_ext_winograd(
        x: *const C_tensor,
        weights: *const C_tensor,
        bias: *const C_tensor,
        y: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn tch_ext_winograd_applies(x: *const C_tensor, input: i64, output: i64) -> bool;
    fn tch_ext_allow_winograd(allow: bool);
    fn tch_ext_multiplies_bf16() -> bool;
    fn tch_ext_processor() -> *const c_char;
}

/// The convolution of `x` `[B, in, H, W]` with `weights` `[out, in, 3, 3]` and `bias` `[out]` at stride 1 and padding
/// 1, with its gradients, by F(2x2, 3x3) (Lavin & Gray 2015, arXiv 1509.09308): 2.25 times fewer multiplications than
/// direct convolution, at about twice its rounding error. On the CPU only, with channels in multiples of 16; weights
/// are f32, x is f32 or bf16, and the result has the type of x, channels last. The result does not depend on the number
/// of threads. Second-order gradients are not supported.
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

/// Whether [`winograd`] supports a convolution of `x` from `input` to `output` channels and is the fastest choice: on
/// the CPU in f32, and in bf16 if the processor cannot multiply bf16.
pub fn winograd_applies(x: &Tensor, input: i64, output: i64) -> bool {
    // SAFETY: `x` is a live tensor, of which only properties are read.
    unsafe { tch_ext_winograd_applies(x.as_ptr(), input, output) }
}

/// Allows or forbids Winograd convolutions in the whole process: if forbidden, [`winograd_applies`] returns false. They
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
