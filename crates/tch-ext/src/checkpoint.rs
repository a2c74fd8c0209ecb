//! Activation checkpointing: recomputing a part of the network in backward instead of storing its activations.

use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::{TchError, Tensor};
use torch_sys::C_tensor;

use crate::message::check;
use crate::release::release;

unsafe extern "C" {
    fn tch_ext_checkpoint(
        inputs: *const *const C_tensor,
        count: usize,
        context: *mut c_void,
        call: Call,
        release: extern "C" fn(*mut c_void),
        output: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// Runs a part: its context, its inputs and their number, where to store its output, and a buffer for an error message
/// with its size.
type Call = extern "C" fn(*mut c_void, *const *const C_tensor, usize, *mut *mut C_tensor, *mut c_char, usize) -> bool;

type Part = Box<dyn Fn(&[Tensor]) -> Result<Tensor, TchError> + Send>;

/// Computes `part(inputs)`, for which autograd stores only the inputs: backward runs `part` again (Chen et al. 2016,
/// arXiv 1604.06174) and backpropagates through it, so that the leaves in it receive their gradients and call their
/// hooks.
///
/// Gradients flow to `inputs` and to leaves that `part` captures, but to no other tensor: tensors computed outside must
/// be passed as inputs. `part` must return the same result for the same inputs. At least one input must require a
/// gradient, or there is no backward. Second-order gradients are not supported.
///
/// # Errors
/// If `part` fails or panics; in backward, such an error fails the backward pass.
pub fn checkpoint(
    inputs: &[&Tensor],
    part: impl Fn(&[Tensor]) -> Result<Tensor, TchError> + Send + 'static,
) -> Result<Tensor, TchError> {
    let context = Box::into_raw(Box::new(Box::new(part) as Part));
    let pointers: Vec<*const C_tensor> = inputs.iter().map(|input| input.as_ptr()).collect();
    let mut output = std::ptr::null_mut();
    // SAFETY: the inputs are live tensors, borrowed for the call. The shim takes ownership of `context`, a `Part` from
    // Box::into_raw, whatever it returns: while it holds it, it passes it to `call`, one call at a time (libtorch locks
    // a graph node while it runs) and on any thread, which `Send` allows; finally it passes it to `release` once. On
    // success `output` is a new tensor, whose ownership from_ptr takes.
    unsafe {
        check(tch_ext_checkpoint(
            pointers.as_ptr(),
            pointers.len(),
            context.cast(),
            call,
            release::<Part>,
            &mut output,
        ))?;
        Ok(Tensor::from_ptr(output))
    }
}

/// Runs the part. Returns true on success, and the caller then owns `output`; otherwise `message` says why. A panic
/// must not unwind into C++.
extern "C" fn call(
    context: *mut c_void,
    inputs: *const *const C_tensor,
    count: usize,
    output: *mut *mut C_tensor,
    message: *mut c_char,
    size: usize,
) -> bool {
    let run = || {
        // SAFETY: `context` is the `Part` that the shim owns and has not released yet.
        let part = unsafe { &*context.cast::<Part>() };
        // SAFETY: the shim passes `count` pointers to tensors that live during the call; if there are none, the pointer
        // may be null, which a slice does not allow.
        let pointers = if count == 0 { &[] } else { unsafe { std::slice::from_raw_parts(inputs, count) } };
        // SAFETY: as above; clone_from_ptr only reads through the pointer and creates its own reference.
        let inputs: Vec<Tensor> =
            pointers.iter().map(|input| unsafe { Tensor::clone_from_ptr(input.cast_mut()) }).collect();
        part(&inputs)
    };
    let failed = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(tensor)) => {
            // SAFETY: the shim passes a valid place for one pointer and takes ownership of the tensor, which is
            // forgotten here.
            unsafe { *output = tensor.as_ptr().cast_mut() };
            std::mem::forget(tensor);
            return true;
        }
        Ok(Err(TchError::Torch(message))) => message,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "a checkpointed part panicked".into(),
    };
    let len = failed.len().min(size.saturating_sub(1));
    // SAFETY: the shim passes a private, zeroed buffer of `size` bytes, so the text is zero-terminated.
    unsafe { std::ptr::copy_nonoverlapping(failed.as_ptr().cast(), message, len) };
    false
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use tch::{Device, Kind};

    use super::*;
    use crate::GradientSinks;

    const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

    #[test]
    fn inputs_and_parameters_get_their_gradients_and_are_ready_once() {
        let grad = Tensor::zeros([2], F32);
        let sinks = Arc::new(GradientSinks::new(&[grad.shallow_clone()]).unwrap());
        let leaf = sinks.trained(0, &Tensor::from_slice(&[2f32, 3.0])).unwrap();
        let (fired, calls) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let log = Arc::clone(&fired);
        let _grouped = sinks.grouped(&[0], move |index| log.lock().unwrap().push(index)).unwrap();
        let x = Tensor::from_slice(&[5f32, 7.0]).set_requires_grad(true);
        let constant = Tensor::from_slice(&[10f32, 100.0]);
        let (inside, count) = (leaf.shallow_clone(), Arc::clone(&calls));
        let y = checkpoint(&[&(&x * 2.0), &constant], move |inputs| {
            count.fetch_add(1, Ordering::Relaxed);
            // Used twice in the part: its gradient is complete when both have been added.
            Ok(&inputs[0] * &inside * &inputs[1] + &inside)
        })
        .unwrap();
        assert_eq!(Vec::<f32>::try_from(&y).unwrap(), [202.0, 4203.0]);
        y.sum(Kind::Float).backward();
        assert_eq!(Vec::<f32>::try_from(x.grad()).unwrap(), [40.0, 600.0]);
        assert_eq!(Vec::<f32>::try_from(&grad).unwrap(), [101.0, 1401.0], "in the buffer that was set");
        assert_eq!(*fired.lock().unwrap(), [0]);
        assert_eq!(calls.load(Ordering::Relaxed), 2, "once forward, once in backward");
        drop(y);
        assert_eq!(Arc::strong_count(&calls), 1, "the closure is gone");
    }

    #[test]
    fn without_a_gradient_it_runs_once() {
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        let x = Tensor::ones([2], F32);
        let y = checkpoint(&[&x], move |inputs| {
            count.fetch_add(1, Ordering::Relaxed);
            inputs[0].f_mul_scalar(2.0)
        });
        assert!(!y.unwrap().requires_grad());
        assert_eq!((calls.load(Ordering::Relaxed), Arc::strong_count(&calls)), (1, 1));
    }

    #[test]
    fn a_failure_or_panic_fails_only_that_forward_or_backward() {
        let x = Tensor::ones([2], F32).set_requires_grad(true);
        let refused = checkpoint(&[&x], |_| panic!("no")).unwrap_err();
        assert!(refused.to_string().contains("a checkpointed part panicked"), "{refused}");
        let refused = checkpoint(&[&x], |inputs| inputs[0].f_view([3i64])).unwrap_err();
        assert!(refused.to_string().contains("invalid for input of size 2"), "{refused}");
        let fails_again = |again: fn(&Tensor) -> Result<Tensor, TchError>| {
            let calls = AtomicUsize::new(0);
            let y = checkpoint(&[&x], move |inputs| match calls.fetch_add(1, Ordering::Relaxed) {
                0 => inputs[0].f_mul_scalar(2.0),
                _ => again(&inputs[0]),
            });
            y.unwrap().sum(Kind::Float).f_backward().unwrap_err().to_string()
        };
        let error = fails_again(|_| panic!("no"));
        assert!(error.contains("a checkpointed part panicked"), "{error}");
        let error = fails_again(|x| x.f_view([3i64]));
        assert!(error.contains("invalid for input of size 2"), "{error}");
    }
}
