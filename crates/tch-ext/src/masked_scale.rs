//! Zeroes some elements and scales the others.

use std::ffi::c_char;
use std::ptr::null_mut;

use tch::{TchError, Tensor};
use torch_sys::C_tensor;

use crate::message::check;

unsafe extern "C" {
    fn tch_ext_masked_scale(
        x: *const C_tensor,
        mask: *const C_tensor,
        scale: f64,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// `scale * x` where `mask` (bool, of the same shape) is true, and 0 elsewhere. Backward keeps only the mask.
///
/// # Errors
/// If the mask has another shape or kind, or memory runs out.
pub fn masked_scale(x: &Tensor, mask: &Tensor, scale: f64) -> Result<Tensor, TchError> {
    let mut out = null_mut();
    // SAFETY: both tensors are live; the shim creates a new one, whose ownership from_ptr takes.
    unsafe {
        check(tch_ext_masked_scale(x.as_ptr(), mask.as_ptr(), scale, &mut out))?;
        Ok(Tensor::from_ptr(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn values_and_gradients_are_masked_and_scaled_alike() {
        let x = Tensor::from_slice(&[1f32, -2.0, 3.0]).set_requires_grad(true);
        let mask = Tensor::from_slice(&[true, false, true]);
        let y = masked_scale(&x, &mask, 1.5).unwrap();
        assert_eq!(Vec::<f32>::try_from(&y.detach()).unwrap(), [1.5, 0.0, 4.5]);
        (&y * Tensor::from_slice(&[10f32, 20.0, 30.0])).sum(Kind::Float).backward();
        assert_eq!(Vec::<f32>::try_from(&x.grad()).unwrap(), [15.0, 0.0, 45.0]);
        assert!(masked_scale(&x, &mask.narrow(0, 0, 2), 1.0).is_err());
        assert!(masked_scale(&x, &mask.to_kind(Kind::Float), 1.0).is_err());
    }
}
