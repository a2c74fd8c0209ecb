//! Copies of tensors in host memory, made while the GPU computes further.

use std::ffi::{c_char, c_void};
use std::ptr::null_mut;

use tch::{TchError, Tensor};
use torch_sys::C_tensor;

use crate::message::check;

unsafe extern "C" {
    fn tch_ext_begin_snapshot(parts: *const *const C_tensor, count: usize, snapshot: *mut *mut c_void) -> *mut c_char;
    fn tch_ext_end_snapshot(snapshot: *mut c_void, copies: *mut *mut C_tensor) -> *mut c_char;
}

/// The values that tensors had when it was made. Whatever changes the tensors afterwards, on the same stream, does not change
/// these.
#[derive(Debug)]
pub enum Snapshot {
    /// Of tensors in host memory.
    Ready(Vec<Vec<f32>>),
    /// Of a GPU's tensors: on their way to pinned host memory.
    OnTheWay(OnTheWay),
}

/// Copies on their way from a GPU.
#[derive(Debug)]
pub struct OnTheWay {
    snapshot: *mut c_void,
    count: usize,
}

// SAFETY: the shim's snapshot belongs to no thread.
unsafe impl Send for OnTheWay {}

impl Snapshot {
    /// The values of `parts`, in f32, all on one device. On a GPU this takes as long as enqueueing a copy within its
    /// memory; if that is too small, the GPU copies to the host before it computes further.
    ///
    /// # Errors
    /// There is no memory, or the GPU failed.
    pub fn of(parts: &[Tensor]) -> Result<Self, TchError> {
        if !parts.first().is_some_and(|part| part.device().is_cuda()) {
            return parts.iter().map(Vec::try_from).collect::<Result<_, _>>().map(Self::Ready);
        }
        let tensors: Vec<_> = parts.iter().map(Tensor::as_ptr).collect();
        let mut snapshot = null_mut();
        // SAFETY: the tensors are live, and there is at least one.
        unsafe { check(tch_ext_begin_snapshot(tensors.as_ptr().cast(), tensors.len(), &mut snapshot))? };
        Ok(Self::OnTheWay(OnTheWay { snapshot, count: parts.len() }))
    }

    /// Waits until the values are in host memory, and returns those of each part.
    ///
    /// # Errors
    /// The GPU failed.
    pub fn wait(self) -> Result<Vec<Vec<f32>>, TchError> {
        match self {
            Self::Ready(values) => Ok(values),
            Self::OnTheWay(copies) => copies.wait()?.iter().map(Vec::try_from).collect(),
        }
    }
}

impl OnTheWay {
    fn wait(mut self) -> Result<Vec<Tensor>, TchError> {
        let mut copies = vec![null_mut(); self.count];
        let snapshot = std::mem::replace(&mut self.snapshot, null_mut());
        // SAFETY: the snapshot is the shim's, and is not used afterwards; the shim fills all places with new tensors, whose
        // ownership from_ptr takes, unless it fails.
        unsafe {
            check(tch_ext_end_snapshot(snapshot, copies.as_mut_ptr()))?;
            Ok(copies.into_iter().map(|copy| Tensor::from_ptr(copy)).collect())
        }
    }
}

impl Drop for OnTheWay {
    fn drop(&mut self) {
        if !self.snapshot.is_null() {
            // SAFETY: the snapshot is the shim's, and is not used afterwards.
            let _ = unsafe { check(tch_ext_end_snapshot(self.snapshot, null_mut())) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_changes_are_not_in_it() {
        let tensor = Tensor::from_slice(&[1f32, 2.0, 3.0]);
        let snapshot = Snapshot::of(&[tensor.narrow(0, 1, 2), tensor.narrow(0, 0, 0)]).unwrap();
        let _ = tensor.shallow_clone().fill_(7.0);
        let taken = std::thread::spawn(|| snapshot.wait().unwrap()).join().unwrap();
        assert_eq!(taken, [vec![2.0, 3.0], vec![]]);
        assert_eq!(Snapshot::of(&[]).unwrap().wait().unwrap(), Vec::<Vec<f32>>::new());
    }
}
