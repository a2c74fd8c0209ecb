//! GPUs: libtorch's CUDA backend, loaded when one is asked for, and a tensor's memory as NCCL takes it.

use std::ffi::{c_char, c_int};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use nccl_rs::{CUDART_VARIABLE, Cuda, DType, DeviceSlice, StreamHandle};
use tch::{Device, TchError, Tensor};

use crate::message::check;
use crate::slice::contiguous_f32;

unsafe extern "C" {
    fn tch_ext_set_deterministic(on: bool) -> *mut c_char;
    fn tch_ext_make_current(index: c_int) -> *mut c_char;
}

/// What shows the driver: its own device, what the kernel says of it, and its library. In a container that was given no
/// GPU the second may be there alone.
const DRIVER: [&str; 3] = ["/dev/nvidiactl", "/proc/driver/nvidia/version", "libcuda.so.1"];
/// The environment variable that says which GPUs a process sees.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";
/// What CUDA calls a slice of a GPU there.
const SLICE: &str = "MIG-";

/// What is wrong with this machine's GPUs, each as one clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoGpu {
    /// Nothing of the driver.
    NoDriver,
    /// This libtorch, in that folder, has no CUDA backend.
    CpuOnly(PathBuf),
    /// libtorch's CUDA backend does not load; the loader's words.
    NoBackend(String),
    /// There is none, or `CUDA_VISIBLE_DEVICES` leaves none; the CUDA runtime's words, if it has any.
    NoneVisible(Option<String>),
}

impl NoGpu {
    /// Whether there is a driver, so that somebody expects GPUs to be used, and nobody has hidden them on purpose.
    pub fn is_a_surprise(&self) -> bool {
        let hidden = std::env::var(VISIBLE).is_ok_and(|visible| matches!(visible.trim(), "" | "-1"));
        *self != Self::NoDriver && !hidden
    }

    /// What would make GPUs usable, as the beginning of a sentence.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NoDriver => "Install NVIDIA's driver",
            Self::CpuOnly(_) => "Install a libtorch with CUDA (DDPM_TORCH=cuda scripts/setup.sh)",
            Self::NoBackend(_) => "Install what is missing (docs/gpu.md)",
            Self::NoneVisible(_) => "Compare with `nvidia-smi -L`, which lists the GPUs that the driver knows",
        }
    }
}

impl std::fmt::Display for NoGpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoDriver => write!(f, "there is no NVIDIA driver (neither {} nor {})", DRIVER[0], DRIVER[2]),
            Self::CpuOnly(folder) => write!(f, "libtorch in {} was built for the CPU only", folder.display()),
            Self::NoBackend(words) => write!(f, "libtorch's CUDA backend cannot be loaded ({words})"),
            Self::NoneVisible(words) => {
                f.write_str("libtorch finds no GPU")?;
                if let Ok(visible) = std::env::var(VISIBLE) {
                    write!(f, ", with {VISIBLE}={visible:?}")?;
                }
                words.as_ref().map_or(Ok(()), |words| write!(f, " ({words})"))
            }
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

    /// What tells each of them from all other GPUs, in whatever process: its UUID. A slice of a GPU counts as one of its
    /// own.
    ///
    /// # Errors
    /// The CUDA runtime is not found, or fails.
    pub fn identities(self) -> Result<Vec<String>, nccl_rs::Error> {
        let cuda = Cuda::load()?;
        let uuids = (0..self.count).map(|index| cuda.uuid(index)).collect::<Result<_, _>>()?;
        Ok(with_slices(uuids, &std::env::var(VISIBLE).unwrap_or_default()))
    }
}

/// The UUIDs, or where `CUDA_VISIBLE_DEVICES` names slices, those names: CUDA may give a slice its whole GPU's UUID.
fn with_slices(mut uuids: Vec<String>, visible: &str) -> Vec<String> {
    for (uuid, name) in uuids.iter_mut().zip(visible.split(',')) {
        if name.trim().starts_with(SLICE) {
            *uuid = name.trim().into();
        }
    }
    uuids
}

/// Makes the GPU `device` the calling thread's current one; does nothing for the CPU. A thread that has none uses the
/// first, and takes memory there for a context of its own.
///
/// # Errors
/// libtorch knows of no such GPU.
pub fn make_current(device: Device) -> Result<(), TchError> {
    let Device::Cuda(index) = device else { return Ok(()) };
    // SAFETY: any number is allowed; a wrong one is an error.
    unsafe { check(tch_ext_make_current(index as c_int)) }
}

/// From now on, in the whole process: with `on`, operations take algorithms that give the same bits each time, and fail
/// where there is none ([`Trouble::Undetermined`](crate::Trouble::Undetermined)); without, those that are fastest. It
/// matters on GPUs: the CPU repeats its bits in any case.
///
/// cuBLAS needs `CUBLAS_WORKSPACE_CONFIG` besides, before it starts. This crate sets it before `main`, unless it is set.
///
/// # Errors
/// None in practice.
pub fn set_deterministic(on: bool) -> Result<(), TchError> {
    // SAFETY: the function sets switches of libtorch's, and has no preconditions.
    unsafe { check(tch_ext_set_deterministic(on)) }
}

fn find() -> Result<Gpus, NoGpu> {
    if let Some(cuda) = stand_in() {
        let count = cuda.device_count().map_err(|error| NoGpu::NoBackend(error.to_string()))?;
        return if count > 0 { Ok(Gpus { count, stand_in: true }) } else { Err(NoGpu::NoneVisible(None)) };
    }
    if !driver_is_there() {
        return Err(NoGpu::NoDriver);
    }
    match libtorch_folder() {
        Ok(folder) if !folder.join(BACKEND).exists() => return Err(NoGpu::CpuOnly(folder)),
        _ => load_cuda_backend().map_err(|error| NoGpu::NoBackend(error.to_string()))?,
    }
    match tch::Cuda::device_count() {
        count @ 1.. => Ok(Gpus { count: count as usize, stand_in: false }),
        // libtorch keeps to itself why, such as a driver that is older than CUDA.
        _ => Err(NoGpu::NoneVisible(Cuda::load().and_then(Cuda::device_count).err().map(|error| error.to_string()))),
    }
}

/// The tests' CUDA runtime, for which the memory of the host is that of its GPUs.
fn stand_in() -> Option<&'static Cuda> {
    std::env::var_os(CUDART_VARIABLE)?;
    Cuda::load().ok().filter(|cuda| cuda.is_stand_in())
}

fn driver_is_there() -> bool {
    let [device, known, library] = DRIVER;
    // SAFETY: loading the driver's library runs its initializers, which have no preconditions.
    [device, known].iter().any(|file| Path::new(file).exists())
        || unsafe { Library::open(Some(library), RTLD_NOW) }.is_ok()
}

/// The file of libtorch's CUDA backend.
const BACKEND: &str = "libtorch_cuda.so";

/// Loads libtorch's CUDA backend, beside the libtorch in use, to the end of the process: nothing refers to it, so no linker
/// would.
///
/// # Errors
/// The file or a library that it needs is not there; the loader's words name it.
pub fn load_cuda_backend() -> Result<(), TchError> {
    let path = libtorch_folder()?.join(BACKEND);
    // SAFETY: it is the other half of the libtorch that runs already; its initializers register it there.
    let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) };
    std::mem::forget(library.map_err(|error| TchError::Torch(error.to_string()))?);
    Ok(())
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
    fn slices_are_told_apart_by_their_names() {
        let uuids = || vec!["GPU-1".to_owned(), "GPU-2".to_owned()];
        assert_eq!(with_slices(uuids(), ""), uuids());
        assert_eq!(with_slices(uuids(), "0,1"), uuids());
        assert_eq!(with_slices(vec!["GPU-1".into()], "MIG-a, MIG-b"), ["MIG-a"]);
    }

    #[test]
    fn a_gpu_that_is_not_there_is_refused() {
        make_current(Device::Cpu).unwrap();
        assert!(make_current(Device::Cuda(0)).is_err());
    }

    #[test]
    fn memory_of_the_host_is_no_gpu_s() {
        let mut tensor = Tensor::from_slice(&[1f32, 2.0]);
        let refused = with_f32_on_gpu(&mut tensor, |_| ()).unwrap_err().to_string();
        assert!(refused.contains("a contiguous f32 tensor on a GPU is needed, not Float on Cpu"), "{refused}");
    }
}
