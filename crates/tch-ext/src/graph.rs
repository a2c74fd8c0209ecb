//! Work for a GPU that is recorded once, as a CUDA graph, and enqueued as a whole from then on.

use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;

use nccl_rs::Cuda;
use tch::{Device, TchError};

use crate::attempt::attempt;
use crate::gpus::{compute_stream, fake_runtime};
use crate::message::check;

unsafe extern "C" {
    fn tch_ext_begin_graph(index: c_int, graph: *mut *mut c_void) -> *mut c_char;
    fn tch_ext_end_graph(graph: *mut c_void) -> *mut c_char;
    fn tch_ext_replay_graph(graph: *mut c_void) -> *mut c_char;
    fn tch_ext_free_graph(graph: *mut c_void);
}

/// Recorded work. It reads and writes the memory that the tensors had which it was recorded with, so these must be kept,
/// and be changed in place only; the memory of all others belongs to the graph.
#[derive(Debug)]
pub struct Graph {
    /// None on the CPU.
    handle: Option<*mut c_void>,
}

impl Graph {
    /// Records the work that `pass` enqueues on `device`, which must be the thread's current one. A GPU does none of it yet,
    /// so that the values of its results are undefined. Before, the pass must have run a few times: at first, libraries
    /// choose algorithms and allocate memory of their own. It is called twice.
    ///
    /// The CPU cannot record. There the pass is run once instead, and run again instead of replayed: its results then show
    /// whether it reads anything that changes beside its tensors. With the tests' fake GPU, it must also keep to the rules
    /// of CUDA.
    ///
    /// `pass` must not wait for the GPU, read values from it, or copy to it from memory that is not pinned. A panic in it,
    /// the error of a tensor operator, is an error here.
    ///
    /// # Errors
    /// `pass` fails, does what cannot be recorded, or this libtorch records nothing.
    pub fn record<E: From<TchError>>(device: Device, mut pass: impl FnMut() -> Result<(), E>) -> Result<Self, E> {
        attempt(|| {
            // Libtorch's allocator does not recover from a recording that fails, so it learns of none that might.
            Self::rehearse(device, &mut pass)?;
            match device {
                Device::Cuda(index) => Self::capture(index, pass),
                _ => Ok(Self { handle: None }),
            }
        })
    }

    /// Records a pass without libtorch.
    fn rehearse<E: From<TchError>>(device: Device, pass: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let failed = |error: nccl_rs::Error| TchError::Torch(error.to_string());
        let cuda = match device {
            Device::Cuda(_) => Some(Cuda::load().map_err(failed)?),
            _ => fake_runtime(),
        };
        let Some(cuda) = cuda else { return pass() };
        let mut passed = Ok(());
        let captured = cuda.capture(compute_stream(device)?, || passed = attempt(pass));
        // If both have failed, the pass knows what was not allowed.
        passed?;
        Ok(captured.map_err(failed)?)
    }

    fn capture<E: From<TchError>>(index: usize, pass: impl FnOnce() -> Result<(), E>) -> Result<Self, E> {
        let mut graph = null_mut();
        // SAFETY: any number is allowed; the shim writes a graph, which is ours, unless it fails.
        unsafe { check(tch_ext_begin_graph(index as c_int, &mut graph))? };
        let passed = attempt(pass);
        // SAFETY: the graph is live, and not used again if this fails.
        let recorded = unsafe { check(tch_ext_end_graph(graph)) }.map(|()| Self { handle: Some(graph) });
        passed?;
        Ok(recorded?)
    }

    /// Enqueues the recorded work, which uses the values that its tensors have at that point of the stream; on the CPU, calls
    /// `imitation`, the pass that was recorded.
    ///
    /// # Errors
    /// The GPU failed.
    pub fn replay<E: From<TchError>>(&self, imitation: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        match self.handle {
            // SAFETY: the graph is live and complete.
            Some(graph) => Ok(unsafe { check(tch_ext_replay_graph(graph)) }?),
            None => imitation(),
        }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if let Some(graph) = self.handle {
            // SAFETY: the graph is ours, and not used afterwards. CUDA keeps one that is running until it is done.
            unsafe { tch_ext_free_graph(graph) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;
    use std::process::Command;

    use tch::Tensor;

    use super::*;
    use crate::gpus::libtorch_folder;

    unsafe extern "C" {
        fn tch_ext_graph_symbol(i: usize) -> *const c_char;
    }

    /// The functions of `at::cuda::CUDAGraph` in the releases that this crate supports, as `nm` lists them.
    const KNOWN: &str = include_str!("../tests/golden/cuda_graph_symbols.txt");

    fn needed() -> Vec<&'static str> {
        // SAFETY: the shim returns a constant, or null.
        let symbol = |i| unsafe { tch_ext_graph_symbol(i).as_ref().map(|first| CStr::from_ptr(first)) };
        (0..).map_while(symbol).map(|name| name.to_str().unwrap()).collect()
    }

    #[test]
    fn the_functions_that_are_looked_up_are_in_every_supported_libtorch() {
        assert_eq!(needed().len(), 5);
        let releases: Vec<&str> = KNOWN.split("libtorch ").skip(1).collect();
        assert_eq!(releases.len(), 2);
        for release in releases {
            for name in needed() {
                assert!(release.lines().any(|line| line == name), "{name} in {release}");
            }
        }
        // The libtorch at hand has its CUDA backend as a file, if it is not one for the CPU only.
        let backend = libtorch_folder().unwrap().join("libtorch_cuda.so");
        if backend.exists() {
            let listed = Command::new("nm").args(["-D", "--defined-only"]).arg(&backend).output().unwrap();
            let listed = String::from_utf8(listed.stdout).unwrap();
            for name in needed() {
                assert!(
                    listed.lines().any(|line| line.ends_with(&format!(" T {name}"))),
                    "{name} in {}",
                    backend.display()
                );
            }
        }
    }

    #[test]
    fn the_cpu_runs_the_pass_each_time() {
        let counter = Tensor::from_slice(&[0i64]);
        let count = || counter.shallow_clone().f_add_scalar_(1).map(drop);
        let graph = Graph::record(Device::Cpu, count).unwrap();
        graph.replay(count).unwrap();
        assert_eq!(counter.int64_value(&[0]), 2);
    }

    #[test]
    fn a_recording_that_fails_is_an_error() {
        let refused = Graph::record(Device::Cpu, || Err(TchError::Torch("no".into()))).unwrap_err();
        assert!(refused.to_string().contains("no"));
        let panicked = Graph::record(Device::Cpu, || -> Result<(), TchError> { panic!("no") }).unwrap_err();
        assert!(panicked.to_string().contains("a panic"));
        // There is no such GPU here.
        assert!(Graph::record(Device::Cuda(0), || Ok::<_, TchError>(())).is_err());
    }
}
