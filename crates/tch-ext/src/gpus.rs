//! GPUs: libtorch's CUDA backend, loaded on demand, and access to a tensor's memory for NCCL.

use std::ffi::{c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use nccl_rs::{CUDART_VARIABLE, Cuda, DType, DeviceSlice, StreamHandle};
use tch::{Device, Kind, TchError, Tensor};
use torch_sys::C_tensor;

use crate::message::check;
use crate::slice::contiguous;

unsafe extern "C" {
    fn tch_ext_set_deterministic(on: bool) -> *mut c_char;
    fn tch_ext_make_current(index: c_int) -> *mut c_char;
    fn tch_ext_compute_stream(index: c_int, handle: *mut *mut c_void) -> *mut c_char;
    fn tch_ext_gpu_memory(index: c_int, allocated: *mut i64, reserved: *mut i64) -> *mut c_char;
    fn tch_ext_gpu_total_memory(index: c_int, total: *mut i64) -> *mut c_char;
    fn tch_ext_pinned(like: *const C_tensor, index: c_int, pinned: *mut *mut C_tensor) -> *mut c_char;
}

/// Signs of the driver: its device file, the kernel's entry for it, and its library. In a container without access to a
/// GPU there may be only the second.
const DRIVER: [&str; 3] = ["/dev/nvidiactl", "/proc/driver/nvidia/version", "libcuda.so.1"];
/// The environment variable that selects the GPUs that a process sees.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";
/// The environment variable with Slurm's numbers of a task's GPUs.
const OF_TASK: &str = "SLURM_STEP_GPUS";
/// The prefix of the name of a slice of a GPU in [`VISIBLE`].
const SLICE: &str = "MIG-";

/// Why no GPU can be used; each message is one clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoGpu {
    /// There is no driver.
    NoDriver,
    /// libtorch, in this folder, has no CUDA backend.
    CpuOnly(PathBuf),
    /// libtorch's CUDA backend does not load; with the loader's message.
    NoBackend(String),
    /// There is none, or `CUDA_VISIBLE_DEVICES` hides all; with the CUDA runtime's message, if any.
    NoneVisible(Option<String>),
}

impl NoGpu {
    /// Whether GPUs are probably expected to work: there is a driver, and they are not hidden on purpose.
    pub fn is_unexpected(&self) -> bool {
        let hidden = std::env::var(VISIBLE).is_ok_and(|visible| matches!(visible.trim(), "" | "-1"));
        *self != Self::NoDriver && !hidden
    }
}

impl std::fmt::Display for NoGpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoDriver => write!(f, "there is no NVIDIA driver (neither {} nor {})", DRIVER[0], DRIVER[2]),
            Self::CpuOnly(folder) => write!(f, "libtorch in {} was built for the CPU only", folder.display()),
            Self::NoBackend(message) => write!(f, "libtorch's CUDA backend cannot be loaded ({message})"),
            Self::NoneVisible(message) => {
                f.write_str("libtorch finds no GPU")?;
                if let Ok(visible) = std::env::var(VISIBLE) {
                    write!(f, ", with {VISIBLE}={visible:?}")?;
                }
                message.as_ref().map_or(Ok(()), |message| write!(f, " ({message})"))
            }
        }
    }
}

/// The GPUs that this process may use, at least one.
#[derive(Clone, Copy, Debug)]
pub struct Gpus {
    count: usize,
    is_fake: bool,
}

impl Gpus {
    /// Looks for GPUs. If there is a driver, libtorch's CUDA backend is loaded until the end of the process; otherwise
    /// nothing is loaded, so that a machine without GPUs has no overhead.
    ///
    /// Must be called before the first backward pass, when libtorch fixes its list of devices.
    ///
    /// # Errors
    /// If there is none; see [`NoGpu`].
    pub fn find() -> Result<Self, NoGpu> {
        static FOUND: OnceLock<Result<Gpus, NoGpu>> = OnceLock::new();
        FOUND.get_or_init(find).clone()
    }

    /// The number of GPUs.
    pub fn count(self) -> usize {
        self.count
    }

    /// The libtorch device of one of them, counted from 0.
    pub fn device(self, index: usize) -> Device {
        if self.is_fake { Device::Cpu } else { Device::Cuda(index) }
    }

    /// The name of a GPU's model.
    ///
    /// # Errors
    /// If the CUDA runtime is not found, or fails.
    pub fn name(self, index: usize) -> Result<String, nccl_rs::Error> {
        Cuda::load()?.name(index)
    }

    /// A globally unique identifier of each: its UUID. A slice of a GPU counts as a separate GPU.
    ///
    /// # Errors
    /// If the CUDA runtime is not found, or fails.
    pub fn identities(self) -> Result<Vec<String>, nccl_rs::Error> {
        let cuda = Cuda::load()?;
        let uuids = (0..self.count).map(|index| cuda.uuid(index)).collect::<Result<_, _>>()?;
        Ok(with_slices(uuids, &std::env::var(VISIBLE).unwrap_or_default()))
    }

    /// What the environment calls each GPU, unique on this machine, for when CUDA does not identify them.
    pub fn labels(self) -> Vec<String> {
        let variable = |name| std::env::var(name).unwrap_or_default();
        labels(self.count, &variable(VISIBLE), &variable(OF_TASK))
    }
}

/// The names in `CUDA_VISIBLE_DEVICES` or, if it does not name all of them, their numbers. With Slurm's `--gpus-per-task`
/// the name may be 0 for every task, if the task's control group hides the other GPUs: Slurm's own number comes first.
fn labels(count: usize, visible: &str, of_task: &str) -> Vec<String> {
    let named = |list: &str| list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(Into::into).collect();
    let (visible, of_task): (Vec<String>, Vec<String>) = (named(visible), named(of_task));
    if count == 1 && of_task.len() == 1 {
        of_task
    } else if visible.len() >= count {
        visible.into_iter().take(count).collect()
    } else {
        (0..count).map(|index| index.to_string()).collect()
    }
}

/// The UUIDs or, for slices named in `CUDA_VISIBLE_DEVICES`, those names: CUDA may report the UUID of the whole GPU for
/// a slice.
fn with_slices(mut uuids: Vec<String>, visible: &str) -> Vec<String> {
    for (uuid, name) in uuids.iter_mut().zip(visible.split(',')) {
        if name.trim().starts_with(SLICE) {
            *uuid = name.trim().into();
        }
    }
    uuids
}

/// Makes the GPU `device` the calling thread's current one, and selects the one stream on which this process computes
/// there; does nothing for the CPU. Every thread that computes must call this first: without a current GPU it would use the
/// first one, and allocate memory there for a context; and its work on another stream would not be ordered with the rest.
/// Autograd runs each backward operation on the stream of its forward operation.
///
/// # Errors
/// If libtorch has no such GPU.
pub fn make_current(device: Device) -> Result<(), TchError> {
    let Device::Cuda(index) = device else { return Ok(()) };
    // SAFETY: any number is allowed; an invalid one is an error.
    unsafe { check(tch_ext_make_current(index as c_int)) }
}

/// The largest use of a GPU's memory since the process started, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GpuMemory {
    /// In tensors.
    pub allocated: i64,
    /// Reserved by libtorch for tensors; CUDA and NCCL use more.
    pub reserved: i64,
}

impl GpuMemory {
    /// That of the GPU `device`; `None` for the CPU.
    ///
    /// # Errors
    /// If libtorch has no such GPU.
    pub fn peak(device: Device) -> Result<Option<Self>, TchError> {
        let Device::Cuda(index) = device else { return Ok(None) };
        let mut peak = Self::default();
        // SAFETY: any number is allowed; the shim writes both values unless it fails.
        unsafe { check(tch_ext_gpu_memory(index as c_int, &mut peak.allocated, &mut peak.reserved))? };
        Ok(Some(peak))
    }

    /// Bytes of memory of the GPU `device` in all; `None` for the CPU, and if libtorch does not know.
    pub fn total(device: Device) -> Option<i64> {
        let Device::Cuda(index) = device else { return None };
        let mut total = 0;
        // SAFETY: any number is allowed; the shim writes the value unless it fails.
        unsafe { check(tch_ext_gpu_total_memory(index as c_int, &mut total)).ok()? };
        Some(total)
    }
}

/// A new tensor of zeros in host memory, to be copied to `device`. For a GPU its memory is pinned, so that
/// the copy does not hold the host.
///
/// # Errors
/// There is no memory.
pub fn staging(shape: &[i64], kind: Kind, device: Device) -> Result<Tensor, TchError> {
    let Device::Cuda(index) = device else { return Tensor::f_zeros(shape, (kind, Device::Cpu)) };
    let like = Tensor::f_empty(shape, (kind, Device::Cpu))?;
    let mut pinned = null_mut();
    // SAFETY: the tensor is live; the shim creates a new one, whose ownership from_ptr takes.
    unsafe {
        check(tch_ext_pinned(like.as_ptr(), index as c_int, &mut pinned))?;
        Ok(Tensor::from_ptr(pinned))
    }
}

/// Sets a process-wide mode: with `on`, operations use deterministic algorithms, and fail if there is none
/// ([`TorchFailure::Nondeterministic`](crate::TorchFailure::Nondeterministic)); otherwise they use the fastest ones. It
/// matters only on GPUs: the CPU is deterministic in any case.
///
/// cuBLAS also needs `CUBLAS_WORKSPACE_CONFIG` before it is initialized. This crate sets it before `main`, unless it is
/// already set.
///
/// # Errors
/// None in practice.
pub fn set_deterministic(on: bool) -> Result<(), TchError> {
    // SAFETY: the function sets options of libtorch, and has no preconditions.
    unsafe { check(tch_ext_set_deterministic(on)) }
}

fn find() -> Result<Gpus, NoGpu> {
    if let Some(cuda) = fake_runtime() {
        let count = cuda.device_count().map_err(|error| NoGpu::NoBackend(error.to_string()))?;
        return if count > 0 { Ok(Gpus { count, is_fake: true }) } else { Err(NoGpu::NoneVisible(None)) };
    }
    if !has_driver() {
        return Err(NoGpu::NoDriver);
    }
    match libtorch_folder() {
        Ok(folder) if !folder.join(BACKEND).exists() => return Err(NoGpu::CpuOnly(folder)),
        _ => load_cuda_backend().map_err(|error| NoGpu::NoBackend(error.to_string()))?,
    }
    match tch::Cuda::device_count() {
        count @ 1.. => Ok(Gpus { count: count as usize, is_fake: false }),
        // libtorch does not report the reason, such as a driver that is older than CUDA.
        _ => Err(NoGpu::NoneVisible(Cuda::load().and_then(Cuda::device_count).err().map(|error| error.to_string()))),
    }
}

/// The tests' fake CUDA runtime, which treats host memory as GPU memory.
pub(crate) fn fake_runtime() -> Option<&'static Cuda> {
    std::env::var_os(CUDART_VARIABLE)?;
    Cuda::load().ok().filter(|cuda| cuda.is_fake())
}

fn has_driver() -> bool {
    let [device, known, library] = DRIVER;
    // SAFETY: loading the driver's library runs its initializers, which have no preconditions.
    [device, known].iter().any(|file| Path::new(file).exists())
        || unsafe { Library::open(Some(library), RTLD_NOW) }.is_ok()
}

/// The file name of libtorch's CUDA backend.
const BACKEND: &str = "libtorch_cuda.so";

/// Loads libtorch's CUDA backend, from the folder of the libtorch in use, until the end of the process: nothing refers
/// to it, so the linker would drop it.
///
/// # Errors
/// If the file or a library that it needs is missing; the loader's message names it.
pub fn load_cuda_backend() -> Result<(), TchError> {
    let path = libtorch_folder()?.join(BACKEND);
    // SAFETY: it belongs to the libtorch that is already loaded; its initializers register it there.
    let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) };
    std::mem::forget(library.map_err(|error| TchError::Torch(error.to_string()))?);
    Ok(())
}

/// The folder of the libtorch that this process has loaded.
///
/// # Errors
/// If it is not among the libraries of this process, or `/proc` does not show them.
pub fn libtorch_folder() -> Result<PathBuf, TchError> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let mut files = maps.lines().filter_map(|line| Some(Path::new(&line[line.find('/')?..])));
    let library = files.find(|file| file.file_name().is_some_and(|name| name == "libtorch_cpu.so"));
    let folder = library.and_then(Path::parent).map(Path::to_owned);
    folder.ok_or_else(|| TchError::Torch("libtorch_cpu.so is not among the libraries of this process".into()))
}

/// Passes the memory of a contiguous f32 tensor on a GPU to `body`, for a collective, ordered on the stream on which this
/// process computes there; see [`make_current`].
///
/// # Errors
/// If the tensor is not f32, not on a GPU, or not contiguous.
pub fn with_f32_on_gpu<R>(tensor: &mut Tensor, body: impl FnOnce(DeviceSlice<'_>) -> R) -> Result<R, TchError> {
    contiguous(tensor, Kind::Float, "a GPU", |device| device.is_cuda() || fake_runtime().is_some())?;
    let (pointer, len, stream) = (tensor.data_ptr(), tensor.numel(), compute_stream(tensor.device())?);
    // SAFETY: the tensor is contiguous, so its storage holds `len` floats from data_ptr on, on its GPU; it lives as
    // long as the borrow, and libtorch orders accesses to the memory, and its reuse, on that stream.
    Ok(body(unsafe { DeviceSlice::from_raw_parts(pointer, len, DType::F32, stream) }))
}

/// The stream on which this process computes on `device`. The tests' fake GPU computes on the host, its default stream.
///
/// # Errors
/// If there is no such GPU.
pub fn compute_stream(device: Device) -> Result<StreamHandle, TchError> {
    let Device::Cuda(index) = device else { return Ok(StreamHandle::DEFAULT) };
    let mut handle = null_mut();
    // SAFETY: any number is allowed, and the shim writes one pointer. Libtorch's streams live as long as the process, and
    // belong to the runtime that both use.
    unsafe {
        check(tch_ext_compute_stream(index as c_int, &mut handle))?;
        Ok(StreamHandle::from_raw(handle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtorch_is_found_where_it_was_loaded_from() {
        assert!(libtorch_folder().unwrap().join("libtorch_cpu.so").is_file());
    }

    #[test]
    fn slices_are_identified_by_their_names() {
        let uuids = || vec!["GPU-1".to_owned(), "GPU-2".to_owned()];
        assert_eq!(with_slices(uuids(), ""), uuids());
        assert_eq!(with_slices(uuids(), "0,1"), uuids());
        assert_eq!(with_slices(vec!["GPU-1".into()], "MIG-a, MIG-b"), ["MIG-a"]);
    }

    #[test]
    fn gpus_are_labelled_by_what_the_environment_calls_them() {
        assert_eq!(labels(2, "", ""), ["0", "1"]);
        assert_eq!(labels(1, "3", ""), ["3"]);
        assert_eq!(labels(2, "GPU-a, GPU-b,GPU-c", ""), ["GPU-a", "GPU-b"]);
        assert_eq!(labels(2, "0", ""), ["0", "1"]);
        // A task of Slurm's with one GPU; its daemons for mpirun, and tasks that divide up the GPUs of a node.
        assert_eq!(labels(1, "0", "3"), ["3"]);
        assert_eq!(labels(2, "0,1", "2,3"), ["0", "1"]);
        assert_eq!(labels(1, "1", "2,3"), ["1"]);
    }

    #[test]
    fn a_missing_gpu_is_refused() {
        make_current(Device::Cpu).unwrap();
        assert!(make_current(Device::Cuda(0)).is_err());
        assert!(GpuMemory::peak(Device::Cuda(0)).is_err());
        assert_eq!(GpuMemory::peak(Device::Cpu).unwrap(), None);
        assert_eq!([Device::Cuda(0), Device::Cpu].map(GpuMemory::total), [None; 2]);
    }

    #[test]
    fn host_memory_is_not_gpu_memory() {
        let mut tensor = Tensor::from_slice(&[1f32, 2.0]);
        let refused = with_f32_on_gpu(&mut tensor, |_| ()).unwrap_err().to_string();
        assert!(refused.contains("a contiguous Float tensor on a GPU is required, not Float on Cpu"), "{refused}");
    }
}
