//! Gradients that are views of a buffer.

use std::ffi::c_char;

use tch::{TchError, Tensor};
use torch_sys::C_tensor;

use crate::message::check;

unsafe extern "C" {
    fn tch_ext_set_grad(param: *mut C_tensor, grad: *const C_tensor) -> *mut c_char;
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
    fn a_gradient_of_another_shape_is_refused() {
        let param = Tensor::ones([2], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
        let wrong = Tensor::zeros([3], (Kind::Float, tch::Device::Cpu));
        assert!(matches!(set_grad(&param, &wrong), Err(TchError::Torch(_))));
    }
}
