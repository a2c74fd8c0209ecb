//! Copies of tensors in host memory, made while the GPU computes further.

use std::ffi::{c_char, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};

use tch::{Device, TchError, Tensor};
use torch_sys::C_tensor;

use crate::message::check;
use crate::slice::with_f32_mut;

unsafe extern "C" {
    fn tch_ext_take_snapshot(parts: *const *const C_tensor, count: usize, snapshot: *mut *mut c_void) -> *mut c_char;
    fn tch_ext_read_snapshot(snapshot: *const c_void, to: *const *mut f32) -> *mut c_char;
    fn tch_ext_free_snapshot(snapshot: *mut c_void) -> *mut c_char;
}

/// The values that tensors had when it was made. Whatever changes the tensors afterwards, on the same stream, does not
/// change these.
#[derive(Debug)]
pub enum Snapshot {
    /// In host memory.
    Ready(Vec<Vec<f32>>),
    /// In a GPU's memory.
    OnGpu(OnGpu),
}

/// Copies within a GPU's memory.
#[derive(Debug)]
pub struct OnGpu {
    snapshot: *mut c_void,
    lens: Vec<usize>,
}

// SAFETY: the shim's snapshot belongs to no thread.
unsafe impl Send for OnGpu {}

/// Whether a GPU once had no memory for a copy. Trying again would empty libtorch's cache of memory each time.
static NO_MEMORY: AtomicBool = AtomicBool::new(false);

impl Snapshot {
    /// The values of `parts`, f32 `[N]`, all on one device. On a GPU this only enqueues a copy within its memory; if that
    /// is too small, it waits until the values are in host memory.
    ///
    /// # Errors
    /// There is no memory, or the GPU failed.
    pub fn of(parts: &[Tensor]) -> Result<Self, TchError> {
        let on_gpu = parts.first().is_some_and(|part| part.device().is_cuda());
        if on_gpu && !NO_MEMORY.load(Ordering::Relaxed) {
            let tensors: Vec<_> = parts.iter().map(Tensor::as_ptr).collect();
            let mut snapshot = null_mut();
            // SAFETY: the tensors are live, and there is at least one.
            unsafe { check(tch_ext_take_snapshot(tensors.as_ptr().cast(), tensors.len(), &mut snapshot))? };
            if !snapshot.is_null() {
                return Ok(Self::OnGpu(OnGpu { snapshot, lens: parts.iter().map(Tensor::numel).collect() }));
            }
            NO_MEMORY.store(true, Ordering::Relaxed);
        }
        parts.iter().map(copied).collect::<Result<_, _>>().map(Self::Ready)
    }

    /// The values of each part, in host memory; on a GPU they pass through pinned memory, on a stream of their own.
    ///
    /// # Errors
    /// The GPU failed.
    pub fn read(self) -> Result<Vec<Vec<f32>>, TchError> {
        match self {
            Self::Ready(values) => Ok(values),
            Self::OnGpu(copies) => copies.read(),
        }
    }
}

/// The values of a tensor; those of a contiguous one on the CPU are copied into memory that is not cleared first.
fn copied(part: &Tensor) -> Result<Vec<f32>, TchError> {
    match part.device() == Device::Cpu && part.is_contiguous() {
        true => with_f32_mut(&mut part.shallow_clone(), |values| values.to_vec()),
        false => Vec::try_from(part),
    }
}

impl OnGpu {
    fn read(&self) -> Result<Vec<Vec<f32>>, TchError> {
        let mut values: Vec<Vec<f32>> = self.lens.iter().map(|len| vec![0.0; *len]).collect();
        let to: Vec<*mut f32> = values.iter_mut().map(Vec::as_mut_ptr).collect();
        // SAFETY: the snapshot is live, and there is a place for each of its parts, as long as that part.
        unsafe { check(tch_ext_read_snapshot(self.snapshot, to.as_ptr()))? };
        Ok(values)
    }
}

impl Drop for OnGpu {
    fn drop(&mut self) {
        // SAFETY: the snapshot is the shim's, and is not used afterwards.
        let _ = unsafe { check(tch_ext_free_snapshot(self.snapshot)) };
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
        let taken = std::thread::spawn(|| snapshot.read().unwrap()).join().unwrap();
        assert_eq!(taken, [vec![2.0, 3.0], vec![]]);
        assert_eq!(Snapshot::of(&[]).unwrap().read().unwrap(), Vec::<Vec<f32>>::new());
    }
}
