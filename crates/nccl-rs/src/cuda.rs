//! The few functions of the CUDA runtime that collectives need, and its devices.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::path::Path;
use std::sync::OnceLock;

use crate::Error;
use crate::library::{Loaded, functions};

/// The environment variable for the path of the CUDA runtime library.
pub const CUDART_VARIABLE: &str = "DDPM_CUDART_LIB";

/// `cudaErrorNoDevice`.
const NO_DEVICE: c_int = 100;
/// Offset and size of the UUID in `cudaDeviceProp`, which in every version of CUDA begins with a name of 256 bytes and
/// the UUID; and an upper bound on the size of that struct, which is about 1 KiB.
const UUID_AT: usize = 256;
const UUID_LEN: usize = 16;
const PROPERTIES_SIZE: usize = 8192;
/// Buffer size for an address such as `0000:3b:00.0`, zero-terminated.
const ADDRESS: usize = 32;

functions!(Functions {
    cudaGetErrorString(c_int) -> *const c_char;
    cudaGetLastError() -> c_int;
    cudaGetDeviceCount(*mut c_int) -> c_int;
    cudaSetDevice(c_int) -> c_int;
    cudaGetDeviceProperties(*mut c_void, c_int) -> c_int;
    cudaDeviceGetPCIBusId(*mut c_char, c_int, c_int) -> c_int;
    cudaStreamCreateWithFlags(*mut *mut c_void, c_uint) -> c_int;
    cudaStreamDestroy(*mut c_void) -> c_int;
    cudaStreamSynchronize(*mut c_void) -> c_int;
    cudaStreamWaitEvent(*mut c_void, *mut c_void, c_uint) -> c_int;
    cudaStreamBeginCapture(*mut c_void, c_int) -> c_int;
    cudaStreamEndCapture(*mut c_void, *mut *mut c_void) -> c_int;
    cudaGraphDestroy(*mut c_void) -> c_int;
    cudaEventCreateWithFlags(*mut *mut c_void, c_uint) -> c_int;
    cudaEventDestroy(*mut c_void) -> c_int;
    cudaEventRecord(*mut c_void, *mut c_void) -> c_int;
    cudaEventQuery(*mut c_void) -> c_int;
    cudaEventElapsedTime(*mut f32, *mut c_void, *mut c_void) -> c_int;
    cudaMalloc(*mut *mut c_void, usize) -> c_int;
    cudaFree(*mut c_void) -> c_int;
    cudaMemcpyAsync(*mut c_void, *const c_void, usize, c_int, *mut c_void) -> c_int;
});

/// The CUDA runtime, loaded until the end of the process.
pub struct Cuda {
    library: Loaded,
    pub(crate) functions: Functions,
}

impl Cuda {
    /// Finds and loads the runtime; see the [crate](crate) for where. Later calls return the same library.
    ///
    /// # Errors
    /// If the runtime is not found or lacks a function.
    pub fn load() -> Result<&'static Self, Error> {
        static LOADED: OnceLock<Cuda> = OnceLock::new();
        if let Some(loaded) = LOADED.get() {
            return Ok(loaded);
        }
        let library = Loaded::find(&["libcudart.so.13", "libcudart.so.12", "libcudart.so"], CUDART_VARIABLE)?;
        let loaded = Self { functions: Functions::of(&library)?, library };
        Ok(LOADED.get_or_init(|| loaded))
    }

    /// Loads the runtime from a file.
    ///
    /// # Errors
    /// If the library does not load or lacks a function.
    pub fn open(path: &Path) -> Result<&'static Self, Error> {
        let library = Loaded::open(path, CUDART_VARIABLE)?;
        Ok(Box::leak(Box::new(Self { functions: Functions::of(&library)?, library })))
    }

    /// The number of GPUs that this process sees; `CUDA_VISIBLE_DEVICES` selects them.
    ///
    /// # Errors
    /// If there is no driver, or it is older than the runtime.
    pub fn device_count(&self) -> Result<usize, Error> {
        let mut count = 0;
        // SAFETY: the function writes one int.
        match unsafe { (self.functions.cudaGetDeviceCount)(&mut count) } {
            NO_DEVICE => {
                self.forget_error();
                Ok(0)
            }
            code => self.check("cudaGetDeviceCount", code).map(|()| count as usize),
        }
    }

    /// The beginning of a GPU's `cudaDeviceProp`: its name and its UUID.
    fn properties(&self, device: usize) -> Result<Vec<u8>, Error> {
        let mut properties = [0u64; PROPERTIES_SIZE / size_of::<u64>()];
        // SAFETY: the function fills a struct that is smaller, and needs no more than this alignment.
        let code = unsafe { (self.functions.cudaGetDeviceProperties)(properties.as_mut_ptr().cast(), device as c_int) };
        self.check("cudaGetDeviceProperties", code)?;
        Ok(properties.iter().flat_map(|word| word.to_ne_bytes()).take(UUID_AT + UUID_LEN).collect())
    }

    /// The name of a GPU's model, such as `NVIDIA H100 80GB HBM3`.
    ///
    /// # Errors
    /// If there is no such GPU.
    pub fn name(&self, device: usize) -> Result<String, Error> {
        let properties = self.properties(device)?;
        let name = properties[..UUID_AT].split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(name).into_owned())
    }

    /// A globally unique identifier of a GPU: `GPU-` and its UUID, in the format of nvidia-smi.
    ///
    /// # Errors
    /// If there is no such GPU.
    pub fn uuid(&self, device: usize) -> Result<String, Error> {
        let mut uuid = String::from("GPU");
        for (index, byte) in self.properties(device)?[UUID_AT..].iter().enumerate() {
            let dash = if matches!(index, 0 | 4 | 6 | 8 | 10) { "-" } else { "" };
            uuid += &format!("{dash}{byte:02x}");
        }
        Ok(uuid)
    }

    /// A GPU's address on its machine's PCI bus, such as `0000:3b:00.0`. Slices of one GPU (MIG) share it.
    ///
    /// # Errors
    /// If there is no such GPU.
    pub fn pci_address(&self, device: usize) -> Result<String, Error> {
        let mut text = [0; ADDRESS];
        // SAFETY: the function writes a zero-terminated text, and no more than the given number of bytes.
        let code =
            unsafe { (self.functions.cudaDeviceGetPCIBusId)(text.as_mut_ptr(), ADDRESS as c_int, device as c_int) };
        self.check("cudaDeviceGetPCIBusId", code)?;
        // SAFETY: the text is terminated within the array.
        Ok(unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned())
    }

    /// Whether this is the fake library of the tests, in the variant that treats host memory as GPU memory.
    pub fn is_fake(&self) -> bool {
        // SAFETY: the function is only looked up, not called.
        unsafe { self.library.function::<unsafe extern "C" fn()>("host_memory_is_gpu_memory").is_ok() }
    }

    /// Makes a GPU the calling thread's current one.
    ///
    /// # Errors
    /// If there is no such GPU, or it is not available.
    pub fn set_device(&self, device: usize) -> Result<(), Error> {
        // SAFETY: any number is allowed; an invalid one is an error.
        self.check("cudaSetDevice", unsafe { (self.functions.cudaSetDevice)(device as c_int) })
    }

    pub(crate) fn check(&self, call: &'static str, code: c_int) -> Result<(), Error> {
        if code == 0 {
            return Ok(());
        }
        self.forget_error();
        // SAFETY: any code is allowed; the string is the runtime's own constant.
        let message = unsafe { CStr::from_ptr((self.functions.cudaGetErrorString)(code)) };
        Err(Error::Cuda { call, code, message: message.to_string_lossy().into_owned() })
    }

    /// Clears the runtime's last error of this thread; otherwise libtorch would take ours for its own.
    pub(crate) fn forget_error(&self) {
        // SAFETY: no preconditions.
        let _ = unsafe { (self.functions.cudaGetLastError)() };
    }
}

impl fmt::Debug for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cuda({})", self.library.path.display())
    }
}
