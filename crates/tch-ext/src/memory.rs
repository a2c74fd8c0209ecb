//! What tensors take of memory.

use std::ffi::{c_char, c_void};

use tch::TchError;

use crate::message::check;

unsafe extern "C" {
    fn tch_ext_begin_watch(watch: *mut *mut c_void) -> *mut c_char;
    fn tch_ext_end_watch() -> *mut c_char;
    fn tch_ext_watch_live(watch: *const c_void) -> i64;
    fn tch_ext_watch_take_peak(watch: *mut c_void) -> i64;
}

/// Counts the bytes that tensors and libtorch's scratch memory take on the CPU, of what this thread allocates while the
/// watch lasts, backward included. What it allocated before must outlive the watch, or libtorch warns.
///
/// Watches on one thread end in the reverse order of their beginnings.
#[derive(Debug)]
pub struct MemoryWatch {
    // A pointer, so that a watch stays on its thread.
    watch: *mut c_void,
}

impl MemoryWatch {
    /// Begins to count, at 0.
    ///
    /// # Errors
    /// libtorch refuses.
    pub fn begin() -> Result<Self, TchError> {
        let mut watch = std::ptr::null_mut();
        // SAFETY: the shim sets `watch` unless it fails; what it points to lives until the thread ends the watch.
        unsafe { check(tch_ext_begin_watch(&mut watch))? };
        Ok(Self { watch })
    }

    /// Bytes allocated and not yet freed.
    pub fn live(&self) -> i64 {
        // SAFETY: `watch` lives until it is ended, when this is dropped.
        unsafe { tch_ext_watch_live(self.watch) }
    }

    /// The most that [`Self::live`] was since the beginning or the last call of this.
    pub fn take_peak(&mut self) -> i64 {
        // SAFETY: as above, and nobody else reads or writes it: libtorch does on this thread only, inside its calls.
        unsafe { tch_ext_watch_take_peak(self.watch) }
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        // SAFETY: this thread began the watch. The shim fails only if another watch was begun after it and not ended.
        let _ = unsafe { check(tch_ext_end_watch()) };
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    #[test]
    fn tensors_are_counted_forward_and_backward() {
        const BYTES: i64 = 4 * 1000;
        let mut watch = MemoryWatch::begin().unwrap();
        let x = Tensor::ones([1000], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        assert_eq!(watch.live(), BYTES);
        // The sine keeps x, which is there already; the square keeps the sine.
        let y = x.sin().square().sum(Kind::Float);
        assert_eq!(watch.live(), 2 * BYTES + 4);
        assert_eq!(watch.take_peak(), 3 * BYTES + 4);
        y.backward();
        assert!(watch.take_peak() >= 4 * BYTES, "gradients are counted");
        drop(y);
        assert_eq!(watch.live(), 2 * BYTES, "x and its gradient");
        drop(x);
        assert_eq!((watch.live(), watch.take_peak()), (0, 2 * BYTES + 4));
        drop(watch);
        let watch = MemoryWatch::begin().unwrap();
        assert_eq!(watch.live(), 0);
    }
}
