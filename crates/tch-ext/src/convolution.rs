//! 3x3 convolutions by Winograd's algorithm, where that is faster than libtorch's own.

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

/// The convolution of `x` `[B, in, H, W]` with `weights` `[out, in, 3, 3]` and `bias` `[out]` at stride 1 and padding 1, with
/// its gradients, by F(2x2, 3x3) (Lavin & Gray 2015, arXiv 1509.09308): 2.25 times fewer multiplications than the
/// definition, at about twice its rounding error. On the CPU, with channels in multiples of 16; weights are f32, x is f32 or
/// bf16, and so is the result, channels last. No bit depends on the number of threads. A gradient of a gradient is not
/// defined.
///
/// # Errors
/// Shapes, kinds or devices are others, or there is not enough memory.
pub fn winograd(x: &Tensor, weights: &Tensor, bias: &Tensor) -> Result<Tensor, TchError> {
    let mut y = null_mut();
    // SAFETY: all inputs are live tensors; on success `y` is a new tensor that nobody else owns, which from_ptr takes.
    unsafe {
        check(tch_ext_winograd(x.as_ptr(), weights.as_ptr(), bias.as_ptr(), &mut y))?;
        Ok(Tensor::from_ptr(y))
    }
}

/// Whether [`winograd`] computes a convolution of `x` from `input` to `output` channels and is the fastest way to: on the
/// CPU in f32, and in bf16 where the processor does not multiply that.
pub fn winograd_applies(x: &Tensor, input: i64, output: i64) -> bool {
    // SAFETY: `x` is a live tensor, of which only properties are read.
    unsafe { tch_ext_winograd_applies(x.as_ptr(), input, output) }
}

/// Whether [`winograd_applies`] may say yes from now on, in the whole process. It may unless this forbids it.
pub fn allow_winograd(allow: bool) {
    // SAFETY: sets an atomic flag.
    unsafe { tch_ext_allow_winograd(allow) }
}

/// The processor whose instructions this crate's kernels use, `avx512`, `avx2` or `any`: the most that the CPU has and
/// `ATEN_CPU_CAPABILITY`, libtorch's own switch, allows.
pub fn processor() -> &'static str {
    // SAFETY: the shim returns a constant that ends with a zero.
    let name = unsafe { CStr::from_ptr(tch_ext_processor()) };
    name.to_str().expect("names are ASCII")
}

/// Whether the CPU has instructions for bf16 and libtorch may use them: `ATEN_CPU_CAPABILITY` and `ONEDNN_MAX_CPU_ISA` may
/// forbid it. Without them libtorch still computes in bf16, some ten times slower than in f32.
pub fn multiplies_bf16() -> bool {
    // SAFETY: reads the processor's features and the environment, once.
    unsafe { tch_ext_multiplies_bf16() }
}
