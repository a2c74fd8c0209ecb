//! Group norm, fused with the operations around it in a U-Net.

use std::ffi::{c_char, c_int};
use std::ptr::{null, null_mut};

use tch::{TchError, Tensor};
use torch_sys::C_tensor;

use crate::message::check;

unsafe extern "C" {
    fn tch_ext_group_norm(
        inputs: *const *const C_tensor,
        count: usize,
        offset: *const C_tensor,
        gain: *const C_tensor,
        bias: *const C_tensor,
        groups: i64,
        eps: f64,
        silu: bool,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn tch_ext_set_group_norm(way: c_int) -> c_int;
}

/// The activation after a norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// z times the logistic function of z.
    Silu,
}

/// The per-channel parameters of a group norm, for all samples (`[1, C]`) or for each one (`[B, C]`), in f32.
#[derive(Clone, Copy, Debug)]
pub struct PerChannel<'a> {
    /// Added before the norm, if given.
    pub offset: Option<&'a Tensor>,
    /// Multiplies the normalised values.
    pub gain: &'a Tensor,
    /// Added to the product.
    pub bias: &'a Tensor,
}

/// The result of a group norm.
#[derive(Debug)]
pub struct Normed<const N: usize> {
    /// `[B, C, H, W]`, channels last if the norm is fused.
    pub y: Tensor,
    /// The inputs again. A residual connection around the norm should start from these: the norm's backward then adds
    /// its gradient, without a separate pass over memory.
    pub inputs: [Tensor; N],
}

/// Computes `activation(gain * norm(x + offset) + bias)`, where x is one tensor `[B, C, H, W]`, or two that are
/// concatenated along their channels without a copy. The norm (Wu & He 2018) subtracts the mean of each group of
/// channels in a sample and divides by sqrt(variance + eps). Fused in f32 and bf16, with statistics in f32; on a GPU if its
/// kernels were compiled ([`compile_gpu_kernels`](crate::compile_gpu_kernels)), and for up to 65,535 samples and 6,144
/// channels.
/// Gradients flow to the inputs and to all tables; second-order gradients are not supported.
///
/// # Errors
/// If there are neither one nor two inputs, they differ in more than their channels, the groups do not divide the
/// channels, or a table has a different shape or is not f32.
pub fn group_norm<const N: usize>(
    inputs: [&Tensor; N],
    tables: PerChannel<'_>,
    groups: i64,
    eps: f64,
    activation: Activation,
) -> Result<Normed<N>, TchError> {
    let inputs = inputs.map(|input| input.as_ptr());
    let PerChannel { offset, gain, bias } = tables;
    // One more than inputs.
    let mut out = [null_mut(); 3];
    // SAFETY: all inputs are live tensors. The shim refuses more than two of them, and otherwise fills N + 1 places of
    // `out` with new tensors, whose ownership from_ptr takes.
    unsafe {
        check(tch_ext_group_norm(
            inputs.as_ptr().cast(),
            N,
            offset.map_or(null(), Tensor::as_ptr),
            gain.as_ptr(),
            bias.as_ptr(),
            groups,
            eps,
            activation == Activation::Silu,
            out.as_mut_ptr(),
        ))?;
        let [y, ..] = out;
        Ok(Normed { y: Tensor::from_ptr(y), inputs: std::array::from_fn(|i| Tensor::from_ptr(out[i + 1])) })
    }
}

/// Another way to compute group norms on the CPU than by its own kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormOnCpu {
    /// By a sequence of libtorch's operations, as on a GPU for which the fused kernels cannot be compiled.
    Composed = 1,
    /// By the fused kernels of a GPU, one block after the other: the same operations, tensors and arithmetic.
    AsGpuKernels = 2,
}

/// Runs `work` with group norms on the CPU computed in this way. Affects only this thread.
pub fn with_group_norm<T>(way: NormOnCpu, work: impl FnOnce() -> T) -> T {
    struct Before(c_int);
    impl Drop for Before {
        fn drop(&mut self) {
            // SAFETY: the shim sets a thread-local number that it returned itself.
            unsafe { tch_ext_set_group_norm(self.0) };
        }
    }
    // SAFETY: each variant is one of the shim's numbers.
    let _before = Before(unsafe { tch_ext_set_group_norm(way as c_int) });
    work()
}
