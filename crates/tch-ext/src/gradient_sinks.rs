//! Gradients that backward adds to memory of the caller's, those of a group of parameters together.

use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::Arc;

use tch::{TchError, Tensor};
use torch_sys::C_tensor;

use crate::message::check;
use crate::release::release;

unsafe extern "C" {
    fn tch_ext_sinks(sums: *const *const C_tensor, count: usize, sinks: *mut *mut c_void) -> *mut c_char;
    fn tch_ext_free_sinks(sinks: *mut c_void);
    fn tch_ext_train_into(
        sinks: *const c_void,
        index: usize,
        values: *const C_tensor,
        trained: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn tch_ext_group_sinks(
        sinks: *const c_void,
        group_of: *const usize,
        context: *mut c_void,
        call: extern "C" fn(*mut c_void, usize) -> bool,
        release: extern "C" fn(*mut c_void),
    ) -> *mut c_char;
    fn tch_ext_ungroup_sinks(sinks: *const c_void) -> *mut c_char;
    fn tch_ext_flush_sinks(sinks: *const c_void) -> *mut c_char;
}

/// Where backward adds the gradients of parameters.
///
/// Libtorch's own way, a gradient for each leaf, takes one operation for each parameter, and one more to convert it if
/// the computation is in bf16. Here a group's gradients are added by few operations.
#[derive(Debug)]
pub struct GradientSinks {
    handle: *mut c_void,
    count: usize,
}

// SAFETY: the shim's sinks belong to no thread; it locks what changes.
unsafe impl Send for GradientSinks {}
// SAFETY: as above.
unsafe impl Sync for GradientSinks {}

type Ready = Box<dyn Fn(usize) + Send + Sync>;

impl GradientSinks {
    /// Backward will add to these tensors, in f32, which may be views of one buffer.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new(sums: &[Tensor]) -> Result<Self, TchError> {
        let tensors: Vec<_> = sums.iter().map(Tensor::as_ptr).collect();
        let mut handle = null_mut();
        // SAFETY: the tensors are live, and the shim keeps references of its own.
        unsafe { check(tch_ext_sinks(tensors.as_ptr().cast(), tensors.len(), &mut handle))? };
        Ok(Self { handle, count: sums.len() })
    }

    /// A tensor with the memory of `values`. The gradient that backward computes for it, in its dtype, is added to the
    /// sum number `index`. There may be any number of such tensors.
    ///
    /// # Errors
    /// `values` differs from the sum in shape or device.
    ///
    /// # Panics
    /// If there are fewer sums.
    pub fn trained(&self, index: usize, values: &Tensor) -> Result<Tensor, TchError> {
        assert!(index < self.count, "parameter {index} of {}", self.count);
        let mut trained = null_mut();
        // SAFETY: both are live; the shim creates a new tensor, whose ownership from_ptr takes.
        unsafe {
            check(tch_ext_train_into(self.handle, index, values.as_ptr(), &mut trained))?;
            Ok(Tensor::from_ptr(trained))
        }
    }

    /// Adds gradients group by group, until the result is dropped: when backward has computed the last one of a group,
    /// all are added, and `ready(i)` is called for each parameter of it, on the thread of the backward pass. If a
    /// backward pass does not compute all of them, the others wait until [`flush`](Self::flush), which does not call
    /// `ready`. Without groups, each gradient is added at once.
    ///
    /// A panic in `ready` makes the backward pass fail.
    ///
    /// # Errors
    /// There is no memory.
    ///
    /// # Panics
    /// If `group_of` does not name a group for each parameter.
    pub fn grouped(
        self: &Arc<Self>,
        group_of: &[usize],
        ready: impl Fn(usize) + Send + Sync + 'static,
    ) -> Result<Grouped, TchError> {
        assert_eq!(group_of.len(), self.count, "one group for each parameter");
        let ready: Ready = Box::new(ready);
        let context = Box::into_raw(Box::new(ready)).cast();
        // SAFETY: there are `count` groups. The shim takes ownership of `context`, a `Ready` from Box::into_raw, whatever it
        // returns: it passes it to `call` while it holds it, and to `release` once.
        unsafe { check(tch_ext_group_sinks(self.handle, group_of.as_ptr(), context, call, release::<Ready>))? };
        Ok(Grouped(Arc::clone(self)))
    }

    /// Adds the gradients that wait for the rest of their group.
    ///
    /// # Errors
    /// libtorch fails.
    pub fn flush(&self) -> Result<(), TchError> {
        // SAFETY: the handle is live.
        unsafe { check(tch_ext_flush_sinks(self.handle)) }
    }
}

impl Drop for GradientSinks {
    fn drop(&mut self) {
        // SAFETY: the handle is the shim's, and is not used afterwards; tensors keep the sinks themselves alive.
        unsafe { tch_ext_free_sinks(self.handle) }
    }
}

/// Gradients are added in groups until this is dropped.
#[derive(Debug)]
pub struct Grouped(Arc<GradientSinks>);

impl Drop for Grouped {
    fn drop(&mut self) {
        // SAFETY: the handle is live. The shim fails only if libtorch cannot add what waits.
        let _ = unsafe { check(tch_ext_ungroup_sinks(self.0.handle)) };
    }
}

/// Calls `ready`; returns false if it panicked, which must not unwind into C++.
extern "C" fn call(context: *mut c_void, index: usize) -> bool {
    // SAFETY: `context` is the `Ready` that the shim owns and has not released yet. It is Sync.
    let ready = unsafe { &*context.cast::<Ready>() };
    catch_unwind(AssertUnwindSafe(|| ready(index))).is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tch::{Device, Kind};

    use super::*;

    /// Parameters of two ones, and the flat buffer of their sums.
    fn params(count: i64) -> (Arc<GradientSinks>, Vec<Tensor>, Tensor) {
        let flat = Tensor::zeros([2 * count], (Kind::Float, Device::Cpu));
        let sums: Vec<Tensor> = (0..count).map(|i| flat.narrow(0, 2 * i, 2)).collect();
        let sinks = Arc::new(GradientSinks::new(&sums).unwrap());
        let params = (0..sums.len()).map(|i| sinks.trained(i, &Tensor::ones_like(&sums[i])).unwrap()).collect();
        (sinks, params, flat)
    }

    fn values(flat: &Tensor) -> Vec<f32> {
        flat.try_into().unwrap()
    }

    #[test]
    fn backward_adds_to_the_buffer() {
        let (_sinks, params, flat) = params(2);
        for _ in 0..2 {
            (&params[1] * 3.0 + &params[1] * 2.0).sum(Kind::Float).backward();
        }
        assert_eq!(values(&flat), [0.0, 0.0, 10.0, 10.0]);
        let narrow = GradientSinks::new(&[Tensor::zeros([3], (Kind::Float, Device::Cpu))]).unwrap();
        assert!(narrow.trained(0, &params[0]).unwrap_err().to_string().contains("its gradient's shape and device"));
    }

    #[test]
    fn gradients_in_bf16_are_added_in_f32() {
        let (sinks, params, flat) = params(1);
        let low = sinks.trained(0, &params[0].detach().to_kind(Kind::BFloat16)).unwrap();
        for factor in [256.0, 1.0] {
            (&low * factor).sum(Kind::Float).backward();
        }
        assert_eq!(values(&flat), [257.0; 2], "bf16 has no 257");
    }

    #[test]
    fn a_group_is_ready_once_per_backward_when_all_its_gradients_are_complete() {
        let (sinks, params, flat) = params(4);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, watched) = (Arc::clone(&seen), Mutex::new(flat.shallow_clone()));
        let grouped = sinks.grouped(&[0, 0, 1, 1], move |index| {
            log.lock().unwrap().push((index, values(&watched.lock().unwrap())[2 * index]));
        });
        // params[0] is used twice; params[3] not at all, so its group waits.
        let loss = |p: &[Tensor]| ((&p[0] * 2.0 + &p[0] * 3.0) * &p[1] + &p[2]).sum(Kind::Float);
        loss(&params).backward();
        assert_eq!(*seen.lock().unwrap(), [(0, 5.0), (1, 5.0)]);
        assert_eq!(values(&flat)[4..], [0.0; 4]);
        loss(&params).backward();
        assert_eq!(values(&flat), [10.0, 10.0, 10.0, 10.0, 1.0, 1.0, 0.0, 0.0]);
        sinks.flush().unwrap();
        assert_eq!(values(&flat)[4..6], [2.0; 2]);
        assert_eq!(*seen.lock().unwrap(), [(0, 5.0), (1, 5.0), (0, 10.0), (1, 10.0)]);

        drop(grouped);
        assert_eq!(Arc::strong_count(&seen), 1, "the closure was dropped");
        loss(&params).backward();
        assert_eq!((values(&flat)[4], seen.lock().unwrap().len()), (3.0, 4));
    }

    #[test]
    fn a_panic_fails_only_that_backward() {
        let (sinks, params, _flat) = params(1);
        let _grouped = sinks.grouped(&[0], |_| panic!("no")).unwrap();
        let error = (&params[0] * 2.0).sum(Kind::Float).f_backward().unwrap_err();
        assert!(error.to_string().contains("a gradient hook panicked"), "{error}");
    }
}
