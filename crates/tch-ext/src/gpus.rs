//! GPUs: libtorch's CUDA backend, loaded when one is asked for, and a tensor's memory as NCCL takes it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use nccl_rs::{CUDART_VARIABLE, Cuda, DType, DeviceSlice, StreamHandle};
use tch::{Device, TchError, Tensor};

use crate::{check, contiguous_f32};

unsafe extern "C" {
    fn tch_ext_repeatable_convolutions() -> *mut std::ffi::c_char;
}

/// The driver's own device, and its library.
const DRIVER: [&str; 2] = ["/dev/nvidiactl", "libcuda.so.1"];

/// What is wrong with this machine's GPUs, each as one clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoGpu {
    /// Neither the driver's device nor its library.
    NoDriver,
    /// libtorch's CUDA backend does not load; the loader's words.
    NoBackend(String),
    /// There is none, or `CUDA_VISIBLE_DEVICES` leaves none.
    NoneVisible,
}

impl std::fmt::Display for NoGpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoDriver => write!(f, "no NVIDIA driver is there (neither {} nor {})", DRIVER[0], DRIVER[1]),
            Self::NoBackend(words) => write!(f, "libtorch's CUDA backend cannot be loaded ({words})"),
            Self::NoneVisible => match std::env::var("CUDA_VISIBLE_DEVICES") {
                Ok(visible) => write!(f, "libtorch finds no GPU, with CUDA_VISIBLE_DEVICES={visible:?}"),
                Err(_) => f.write_str("libtorch finds no GPU; `nvidia-smi -L` lists those that the driver knows"),
            },
        }
    }
}

/// The GPUs that this process may use, at least one.
#[derive(Clone, Copy, Debug)]
pub struct Gpus {
    count: usize,
    stand_in: bool,
}

impl Gpus {
    /// Looks for GPUs. Where a driver is there, libtorch's CUDA backend is loaded to the end of the process; elsewhere
    /// nothing is, so that a machine without GPUs pays nothing.
    ///
    /// To be called before the first backward pass, at which libtorch settles for the devices that it knows then.
    ///
    /// # Errors
    /// There is none; see [`NoGpu`].
    pub fn find() -> Result<Self, NoGpu> {
        static FOUND: OnceLock<Result<Gpus, NoGpu>> = OnceLock::new();
        FOUND.get_or_init(find).clone()
    }

    /// How many there are.
    pub fn count(self) -> usize {
        self.count
    }

    /// One of them, counted from 0, as libtorch takes it.
    pub fn device(self, index: usize) -> Device {
        if self.stand_in { Device::Cpu } else { Device::Cuda(index) }
    }
}

fn find() -> Result<Gpus, NoGpu> {
    if let Some(cuda) = stand_in() {
        let count = cuda.device_count().map_err(|error| NoGpu::NoBackend(error.to_string()))?;
        return if count > 0 { Ok(Gpus { count, stand_in: true }) } else { Err(NoGpu::NoneVisible) };
    }
    if !driver_is_there() {
        return Err(NoGpu::NoDriver);
    }
    load_cuda_backend().map_err(|error| NoGpu::NoBackend(error.to_string()))?;
    match tch::Cuda::device_count() {
        count @ 1.. => Ok(Gpus { count: count as usize, stand_in: false }),
        _ => Err(NoGpu::NoneVisible),
    }
}

/// The tests' CUDA runtime, for which the memory of the host is that of its GPUs.
fn stand_in() -> Option<&'static Cuda> {
    std::env::var_os(CUDART_VARIABLE)?;
    Cuda::load().ok().filter(|cuda| cuda.is_stand_in())
}

fn driver_is_there() -> bool {
    // SAFETY: loading the driver's library runs its initializers, which have no preconditions.
    Path::new(DRIVER[0]).exists() || unsafe { Library::open(Some(DRIVER[1]), RTLD_NOW) }.is_ok()
}

/// Loads libtorch's CUDA backend, `libtorch_cuda.so` beside the libtorch in use, to the end of the process: nothing refers
/// to it, so no linker would. Convolutions then take algorithms that give the same bits each time.
///
/// # Errors
/// The file or a library that it needs is not there; the loader's words name it.
pub fn load_cuda_backend() -> Result<(), TchError> {
    let path = libtorch_folder()?.join("libtorch_cuda.so");
    // SAFETY: it is the other half of the libtorch that runs already; its initializers register it there.
    let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) };
    std::mem::forget(library.map_err(|error| TchError::Torch(error.to_string()))?);
    // SAFETY: the function sets a switch of libtorch's, and has no preconditions.
    unsafe { check(tch_ext_repeatable_convolutions()) }
}

/// The folder of the libtorch that this process has loaded.
fn libtorch_folder() -> Result<PathBuf, TchError> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let mut files = maps.lines().filter_map(|line| Some(Path::new(&line[line.find('/')?..])));
    let library = files.find(|file| file.file_name().is_some_and(|name| name == "libtorch_cpu.so"));
    let folder = library.and_then(Path::parent).map(Path::to_owned);
    folder.ok_or_else(|| TchError::Torch("libtorch_cpu.so is not among the libraries of this process".into()))
}

/// Lends the memory of a contiguous f32 tensor on a GPU to `body`, for a collective: ordered on the default stream, on
/// which libtorch computes, on every thread, unless told otherwise, which tch cannot.
///
/// # Errors
/// The tensor is not f32, not on a GPU, or not contiguous.
pub fn with_f32_on_gpu<R>(tensor: &mut Tensor, body: impl FnOnce(DeviceSlice<'_>) -> R) -> Result<R, TchError> {
    contiguous_f32(tensor, "a GPU", |device| device.is_cuda() || stand_in().is_some())?;
    let (pointer, len) = (tensor.data_ptr(), tensor.numel());
    // SAFETY: the tensor is contiguous, so its storage holds `len` floats from data_ptr on, of the GPU that it is on; it
    // lives as long as the borrow, and libtorch orders what touches the memory, and its next use, on the default stream.
    Ok(body(unsafe { DeviceSlice::from_raw_parts(pointer, len, DType::F32, StreamHandle::DEFAULT) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtorch_is_found_where_it_was_loaded_from() {
        assert!(libtorch_folder().unwrap().join("libtorch_cpu.so").is_file());
    }

    #[test]
    fn memory_of_the_host_is_no_gpu_s() {
        let mut tensor = Tensor::from_slice(&[1f32, 2.0]);
        let refused = with_f32_on_gpu(&mut tensor, |_| ()).unwrap_err().to_string();
        assert!(refused.contains("a contiguous f32 tensor on a GPU is needed, not Float on Cpu"), "{refused}");
    }
}
