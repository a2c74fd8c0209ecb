//! Measuring the memory that tensors use.

use std::ffi::{c_char, c_void};

use tch::TchError;

use crate::message::check;

unsafe extern "C" {
    fn tch_ext_begin_watch(watch: *mut *mut c_void) -> *mut c_char;
    fn tch_ext_end_watch() -> *mut c_char;
    fn tch_ext_watch_live(watch: *const c_void) -> i64;
    fn tch_ext_watch_take_peak(watch: *mut c_void) -> i64;
}

/// Counts the bytes that this thread allocates on the CPU for tensors and libtorch's scratch memory while the watch
/// lasts, including backward. Earlier allocations must outlive the watch, or libtorch warns.
///
/// Watches on one thread must end in the reverse order of their creation.
#[derive(Debug)]
pub struct MemoryWatch {
    // A raw pointer, so that a watch stays on its thread.
    watch: *mut c_void,
}

impl MemoryWatch {
    /// Starts counting at 0.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn begin() -> Result<Self, TchError> {
        let mut watch = std::ptr::null_mut();
        // SAFETY: the shim sets `watch` unless it fails; its target lives until the thread ends the watch.
        unsafe { check(tch_ext_begin_watch(&mut watch))? };
        Ok(Self { watch })
    }

    /// Bytes allocated and not yet freed.
    pub fn live(&self) -> i64 {
        // SAFETY: `watch` lives until it is ended, when this is dropped.
        unsafe { tch_ext_watch_live(self.watch) }
    }

    /// The maximum of [`Self::live`] since the start or the last call of this function.
    pub fn take_peak(&mut self) -> i64 {
        // SAFETY: as above, and there is no concurrent access: libtorch uses it only on this thread, inside its calls.
        unsafe { tch_ext_watch_take_peak(self.watch) }
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        // SAFETY: this thread began the watch. The shim fails only if a later watch has not ended.
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
        // The sine saves x, which exists already; the square saves the sine.
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
