//! Counting the operations that libtorch runs.

use std::ffi::c_char;

use tch::TchError;

use crate::message::check;

unsafe extern "C" {
    fn tch_ext_begin_operations(handle: *mut u64) -> *mut c_char;
    fn tch_ext_end_operations(handle: u64, launches: *mut i64, bytes: *mut i64) -> *mut c_char;
}

/// Operations of libtorch that compute something; on a GPU each launches at least one kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operations {
    /// How many, without views and allocations.
    pub launches: i64,
    /// Size of the tensors that they read and wrote.
    pub bytes: i64,
}

/// The result of `work`, and the operations that it ran on this thread, backward on the CPU included. Inside it nothing
/// else may count.
///
/// # Errors
/// If libtorch refuses.
pub fn count_operations<T>(work: impl FnOnce() -> T) -> Result<(T, Operations), TchError> {
    let (mut handle, mut launches, mut bytes) = (0, 0, 0);
    // SAFETY: the shim writes the handle of a callback of this thread.
    unsafe { check(tch_ext_begin_operations(&mut handle))? };
    let result = work();
    // SAFETY: the handle is that callback's, on the same thread; the shim writes both numbers.
    unsafe { check(tch_ext_end_operations(handle, &mut launches, &mut bytes))? };
    Ok((result, Operations { launches, bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn what_computes_is_counted_and_views_are_not() {
        let x = Tensor::ones([10, 4], (Kind::Float, Device::Cpu));
        let counted = |work: &dyn Fn()| count_operations(work).unwrap().1;
        assert_eq!(counted(&|| drop(&x + &x)), Operations { launches: 1, bytes: 3 * 160 });
        assert_eq!(counted(&|| drop(x.view([4, 10]).transpose(0, 1).narrow(0, 0, 2))).launches, 0);
        assert_eq!(counted(&|| drop(x.to_kind(Kind::Float).contiguous())).launches, 0);
        let in_place = counted(&|| drop(x.shallow_clone().f_mul_scalar_(1.0)));
        assert_eq!(in_place.launches, 1);
        // Backward of a product with a constant: the gradient of the sum, and one product.
        let weight = Tensor::ones([10, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let loss = (&weight * &x).sum(Kind::Float);
        assert!((1..=3).contains(&counted(&|| loss.backward()).launches));
        assert_eq!(counted(&|| ()), Operations { launches: 0, bytes: 0 });
    }
}
