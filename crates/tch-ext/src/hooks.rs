//! Hooks that run during backward when a parameter's gradient is complete.

use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tch::{TchError, Tensor};
use torch_sys::C_tensor;

use crate::message::check;

unsafe extern "C" {
    fn tch_ext_set_grad_hook(
        param: *mut C_tensor,
        context: *mut c_void,
        call: extern "C" fn(*mut c_void) -> bool,
        release: extern "C" fn(*mut c_void),
    ) -> *mut c_char;
    fn tch_ext_clear_grad_hook(param: *mut C_tensor) -> *mut c_char;
}

/// Hooks on parameters, which are removed when this is dropped.
#[derive(Debug)]
pub struct GradHooks {
    params: Vec<Tensor>,
}

/// The data that libtorch holds for one parameter.
struct Hook {
    index: usize,
    ready: Arc<dyn Fn(usize) + Send + Sync>,
}

impl GradHooks {
    /// Makes each backward pass call `ready(i)`, on the thread of the backward pass, as soon as it has added everything
    /// to the gradient of the leaf `params[i]`. It is not called for a parameter on which the loss does not depend.
    ///
    /// A panic in `ready` makes the backward pass fail. Each parameter has one such hook: a later one replaces it.
    ///
    /// # Errors
    /// If one of `params` is not a leaf that requires a gradient.
    pub fn attach(params: &[Tensor], ready: impl Fn(usize) + Send + Sync + 'static) -> Result<Self, TchError> {
        let ready: Arc<dyn Fn(usize) + Send + Sync> = Arc::new(ready);
        let mut hooks = Self { params: Vec::with_capacity(params.len()) };
        for (index, param) in params.iter().enumerate() {
            let context = Box::into_raw(Box::new(Hook { index, ready: Arc::clone(&ready) }));
            // SAFETY: `param` is a live tensor. The shim takes ownership of `context`, a `Hook` from Box::into_raw,
            // whatever it returns: it passes it to `call` while it holds it, and to `release` once, when the hook is
            // removed.
            unsafe { check(tch_ext_set_grad_hook(param.as_ptr().cast_mut(), context.cast(), call, release))? };
            hooks.params.push(param.shallow_clone());
        }
        Ok(hooks)
    }
}

impl Drop for GradHooks {
    fn drop(&mut self) {
        for param in &self.params {
            // SAFETY: `param` is a live tensor. The shim fails only for tensors without a hook, and these have one.
            let _ = unsafe { check(tch_ext_clear_grad_hook(param.as_ptr().cast_mut())) };
        }
    }
}

/// Runs the hook; returns false if it panicked, which must not unwind into C++.
extern "C" fn call(context: *mut c_void) -> bool {
    // SAFETY: `context` is the `Hook` that the shim owns and has not released yet. It is Sync, as `ready` is.
    let hook = unsafe { &*context.cast::<Hook>() };
    catch_unwind(AssertUnwindSafe(|| (hook.ready)(hook.index))).is_ok()
}

extern "C" fn release(context: *mut c_void) {
    // SAFETY: `context` came from Box::into_raw, and the shim releases it once and does not use it afterwards.
    let hook = unsafe { Box::from_raw(context.cast::<Hook>()) };
    // Dropping the closure's captures may panic.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(hook)));
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tch::{Device, Kind};

    use super::*;

    fn params(count: usize) -> Vec<Tensor> {
        (0..count).map(|_| Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true)).collect()
    }

    #[test]
    fn a_parameter_is_ready_once_per_backward_when_its_gradient_is_complete() {
        let params = params(3);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, watched) = (Arc::clone(&seen), params[0].shallow_clone());
        let watched = Mutex::new(watched);
        let hooks = GradHooks::attach(&params, move |index| {
            let grad = watched.lock().unwrap().grad();
            log.lock().unwrap().push((index, grad.defined().then(|| grad.double_value(&[0]))));
        })
        .unwrap();
        // params[0] is used twice, params[2] not at all; params[1] is nearer to the loss.
        let loss = |p: &[Tensor]| ((&p[0] * 2.0 + &p[0] * 3.0) * &p[1]).sum(Kind::Float);
        loss(&params).backward();
        loss(&params).backward();
        let mut log = std::mem::take(&mut *seen.lock().unwrap());
        let of_first: Vec<_> = log.extract_if(.., |(index, _)| *index == 0).collect();
        assert_eq!(of_first, [(0, Some(5.0)), (0, Some(10.0))]);
        assert_eq!(log.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 1]);

        drop(hooks);
        assert_eq!(Arc::strong_count(&seen), 1, "the closure was dropped");
        loss(&params).backward();
        assert!(seen.lock().unwrap().is_empty());
    }

    #[test]
    fn a_panic_fails_only_that_backward() {
        let params = params(1);
        let _hooks = GradHooks::attach(&params, |_| panic!("no")).unwrap();
        let error = (&params[0] * 2.0).sum(Kind::Float).f_backward().unwrap_err();
        assert!(error.to_string().contains("a gradient hook panicked"), "{error}");
    }

    #[test]
    fn only_leaves_that_require_a_gradient_accept_hooks() {
        let leaf = params(1).remove(0);
        for wrong in [&leaf * 2.0, Tensor::ones([2], (Kind::Float, Device::Cpu))] {
            let ready: Arc<()> = Arc::default();
            let held = Arc::clone(&ready);
            let refused = GradHooks::attach(&[leaf.shallow_clone(), wrong], move |_| drop(Arc::clone(&held)));
            assert!(refused.unwrap_err().to_string().contains("leaf"));
            assert_eq!(Arc::strong_count(&ready), 1, "a refused hook leaves nothing behind");
        }
    }
}
