//! CUDA C++ that is compiled at run time.

use std::ffi::{CString, c_char, c_int};
use std::path::Path;

use tch::{Device, TchError};

use crate::gpus::libtorch_folder;
use crate::group_norm::NormOnCpu;
use crate::message::check;

unsafe extern "C" {
    fn tch_ext_load_gpu_kernels(path: *const c_char, device: c_int) -> *mut c_char;
    fn tch_ext_unload_gpu_kernels();
    fn tch_ext_has_gpu_kernels() -> bool;
    fn tch_ext_compile_gpu_kernels(path: *const c_char, architecture: *const c_char, bytes: *mut usize) -> *mut c_char;
}

/// The library of libtorch that links NVRTC and the driver.
const NVRTC: &str = "libcaffe2_nvrtc.so";

/// Compiles the fused kernels for the GPU `device`, which takes about two seconds; until then, and if it fails, group norms
/// on a GPU are composed of libtorch's operations. Does nothing on the CPU.
///
/// # Errors
/// NVRTC is missing, or cannot compile for this GPU.
pub fn compile_gpu_kernels(device: Device) -> Result<(), TchError> {
    let Device::Cuda(index) = device else { return Ok(()) };
    let path = c_string(&libtorch_folder()?.join(NVRTC));
    // SAFETY: the path is a C string; the library is libtorch's own, and stays loaded.
    unsafe { check(tch_ext_load_gpu_kernels(path.as_ptr(), index as c_int)) }
}

/// Makes group norms on a GPU be composed of libtorch's operations again.
pub fn forget_gpu_kernels() {
    // SAFETY: the shim frees the table of kernels, which no other thread uses: nothing computes yet.
    unsafe { tch_ext_unload_gpu_kernels() }
}

/// How the CPU can compute group norms as this process's GPU does: with the same operations and tensors.
pub fn norm_of_the_gpu() -> NormOnCpu {
    // SAFETY: the shim reads a pointer, which is written before anything computes.
    if unsafe { tch_ext_has_gpu_kernels() } { NormOnCpu::AsGpuKernels } else { NormOnCpu::Composed }
}

/// Compiles the same kernels by the NVRTC library at `path` for `architecture`, such as `sm_90`, without a GPU. Returns the
/// size of the machine code in bytes.
///
/// # Errors
/// As above.
pub fn check_gpu_kernels(path: &Path, architecture: &str) -> Result<usize, TchError> {
    let architecture = CString::new(architecture).expect("an architecture's name has no NUL");
    let mut bytes = 0;
    // SAFETY: both are C strings, and the shim writes a number. Loading a library runs its initializers, which have no
    // preconditions.
    unsafe { check(tch_ext_compile_gpu_kernels(c_string(path).as_ptr(), architecture.as_ptr(), &mut bytes))? };
    Ok(bytes)
}

fn c_string(path: &Path) -> CString {
    CString::new(path.as_os_str().as_encoded_bytes()).expect("a path has no NUL")
}
