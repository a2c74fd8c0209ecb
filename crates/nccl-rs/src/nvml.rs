//! What NVML, the library behind nvidia-smi, measures about a GPU.

use std::ffi::{CString, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::ptr::null_mut;

use crate::Error;
use crate::library::{Loaded, functions};

/// The environment variable for the path of NVML.
pub const NVML_VARIABLE: &str = "DDPM_NVML_LIB";

functions!(Functions {
    nvmlInit_v2() -> c_int;
    nvmlDeviceGetHandleByUUID(*const c_char, *mut *mut c_void) -> c_int;
    nvmlDeviceGetPowerUsage(*mut c_void, *mut c_uint) -> c_int;
    nvmlDeviceGetUtilizationRates(*mut c_void, *mut [c_uint; 2]) -> c_int;
    nvmlDeviceGetMemoryInfo(*mut c_void, *mut [c_ulonglong; 3]) -> c_int;
});

/// The sensors of one GPU. A slice of a GPU (MIG) has memory of its own, but neither power nor utilisation.
pub struct Sensors {
    functions: Functions,
    _library: Loaded,
    gpu: *mut c_void,
}

// SAFETY: NVML may be called from any thread.
unsafe impl Send for Sensors {}

impl Sensors {
    /// The sensors of the GPU with this identifier, as [`Cuda::uuid`](crate::Cuda::uuid) gives it, or `MIG-` and a slice's.
    ///
    /// # Errors
    /// If NVML is not found, or does not know such a GPU.
    pub fn of(uuid: &str) -> Result<Self, Error> {
        let library = Loaded::find(&["libnvidia-ml.so.1"], NVML_VARIABLE)?;
        let functions = Functions::of(&library)?;
        let name = CString::new(uuid).unwrap_or_default();
        let mut gpu = null_mut();
        // SAFETY: NVML may be initialised more than once.
        succeeded("nvmlInit_v2", unsafe { (functions.nvmlInit_v2)() })?;
        // SAFETY: the name is a C string, and the function writes a handle, which is valid until the end of the process.
        succeeded("nvmlDeviceGetHandleByUUID", unsafe {
            (functions.nvmlDeviceGetHandleByUUID)(name.as_ptr(), &mut gpu)
        })?;
        Ok(Self { functions, _library: library, gpu })
    }

    /// Electrical power in W, of the whole board; `None` if NVML does not know it.
    pub fn power_w(&self) -> Option<f64> {
        let mut milliwatts = 0;
        // SAFETY: the function writes one number.
        let code = unsafe { (self.functions.nvmlDeviceGetPowerUsage)(self.gpu, &mut milliwatts) };
        (code == 0).then(|| f64::from(milliwatts) / 1e3)
    }

    /// Percentage of the last sampling period, at most a second, in which a kernel ran; `None` if NVML does not know it.
    pub fn utilisation(&self) -> Option<f64> {
        let mut rates = [0; 2];
        // SAFETY: the function writes a struct of two such numbers: of kernels, and of memory.
        let code = unsafe { (self.functions.nvmlDeviceGetUtilizationRates)(self.gpu, &mut rates) };
        (code == 0).then(|| f64::from(rates[0]))
    }

    /// Bytes of memory in use by all processes; `None` if NVML does not know it.
    pub fn used_memory(&self) -> Option<u64> {
        let mut memory = [0; 3];
        // SAFETY: the function writes a struct of three such numbers: in total, free, and used.
        let code = unsafe { (self.functions.nvmlDeviceGetMemoryInfo)(self.gpu, &mut memory) };
        (code == 0).then_some(memory[2])
    }
}

fn succeeded(call: &'static str, code: c_int) -> Result<(), Error> {
    if code == 0 { Ok(()) } else { Err(Error::Nvml { call, code }) }
}
