//! Counting the operations that libtorch runs.

use std::collections::BTreeMap;
use std::ffi::c_char;
use std::ptr::null_mut;

use tch::TchError;

use crate::message::{check, taken};

unsafe extern "C" {
    fn tch_ext_begin_operations(handle: *mut u64) -> *mut c_char;
    fn tch_ext_end_operations(handle: u64, launches: *mut *mut c_char, bytes: *mut i64, flops: *mut f64)
    -> *mut c_char;
}

/// Operations of libtorch that compute something; on a GPU each launches at least one kernel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Operations {
    /// How many of each name, without views and allocations.
    pub launches: BTreeMap<String, u64>,
    /// Size of the tensors that they read and wrote.
    pub bytes: i64,
    /// Floating-point operations of forward's convolutions, matrix products and attention, two for each multiply-add;
    /// of backward only its matrix products are counted.
    pub flops: f64,
}

impl Operations {
    /// How many in all.
    pub fn total(&self) -> u64 {
        self.launches.values().sum()
    }
}

/// Counting on this thread, until it is dropped.
struct Counting(u64);

impl Counting {
    fn begin() -> Result<Self, TchError> {
        let mut handle = 0;
        // SAFETY: the shim writes the handle of a callback of this thread.
        unsafe { check(tch_ext_begin_operations(&mut handle))? };
        Ok(Self(handle))
    }

    /// Ends counting; called once.
    fn end(&mut self) -> Result<Operations, TchError> {
        let (mut lines, mut bytes, mut flops) = (null_mut(), 0, 0.0);
        // SAFETY: the handle is that of a callback of this thread; the shim writes all values,
        // and the lines are a string of its own.
        let lines = unsafe {
            check(tch_ext_end_operations(self.0, &mut lines, &mut bytes, &mut flops))?;
            taken(lines)
        };
        let count =
            |line: &str| line.split_once(' ').and_then(|(count, name)| Some((name.into(), count.parse().ok()?)));
        Ok(Operations { launches: lines.lines().filter_map(count).collect(), bytes, flops })
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// The result of `work`, and the operations that it ran on this thread, backward on the CPU included. Inside it nothing
/// else may count.
///
/// # Errors
/// If libtorch refuses.
pub fn count_operations<T>(work: impl FnOnce() -> T) -> Result<(T, Operations), TchError> {
    let mut counting = Counting::begin()?;
    let result = work();
    let counted = counting.end();
    std::mem::forget(counting);
    Ok((result, counted?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn what_computes_is_counted_and_views_are_not() {
        let x = Tensor::ones([10, 4], (Kind::Float, Device::Cpu));
        let counted = |work: &dyn Fn()| count_operations(work).unwrap().1;
        assert_eq!(
            counted(&|| drop(&x + &x)),
            Operations { launches: [("aten::add".into(), 1)].into(), bytes: 480, flops: 0.0 }
        );
        assert_eq!(counted(&|| drop(x.view([4, 10]).transpose(0, 1).narrow(0, 0, 2))).total(), 0);
        assert_eq!(counted(&|| drop(x.to_kind(Kind::Float).contiguous())).total(), 0);
        let in_place = counted(&|| drop(x.shallow_clone().f_mul_scalar_(1.0)));
        assert_eq!(in_place.total(), 1);
        // Backward of a product with a constant: the gradient of the sum, and one product.
        let weight = Tensor::ones([10, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let loss = (&weight * &x).sum(Kind::Float);
        assert!((1..=3).contains(&counted(&|| loss.backward()).total()));
        assert_eq!(counted(&|| drop(x.mm(&x.tr()))).flops, 2.0 * 10.0 * 10.0 * 4.0);
        assert_eq!(counted(&|| ()), Operations::default());
    }
}
