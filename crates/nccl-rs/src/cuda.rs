//! The few functions of the CUDA runtime that collectives need: devices, streams, events, memory.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::path::Path;
use std::sync::OnceLock;

use crate::library::{Loaded, functions};
use crate::{DType, DeviceSlice, Error};

/// The environment variable for the path of the CUDA runtime library.
pub const CUDART_VARIABLE: &str = "DDPM_CUDART_LIB";

/// `cudaErrorNoDevice`, `cudaErrorNotReady`.
const NO_DEVICE: c_int = 100;
const NOT_READY: c_int = 600;
/// `cudaStreamNonBlocking`: not synchronized with the default stream; `cudaEventDisableTiming`; `cudaMemcpyDefault`:
/// the direction follows from the addresses.
const NON_BLOCKING: c_uint = 1;
const DISABLE_TIMING: c_uint = 2;
const COPY_DEFAULT: c_int = 4;
/// Offset and size of the UUID in `cudaDeviceProp`, which in every version of CUDA begins with a name of 256 bytes and
/// the UUID; and an upper bound on the size of that struct, which is about 1 KiB.
const UUID_OFFSET: usize = 256;
const UUID_LEN: usize = 16;
const PROPERTIES_SIZE: usize = 8192;
/// Buffer size for an address such as `0000:3b:00.0`, zero-terminated.
const ADDRESS_SIZE: usize = 32;

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
    cudaEventCreateWithFlags(*mut *mut c_void, c_uint) -> c_int;
    cudaEventDestroy(*mut c_void) -> c_int;
    cudaEventRecord(*mut c_void, *mut c_void) -> c_int;
    cudaEventQuery(*mut c_void) -> c_int;
    cudaMalloc(*mut *mut c_void, usize) -> c_int;
    cudaFree(*mut c_void) -> c_int;
    cudaMemcpyAsync(*mut c_void, *const c_void, usize, c_int, *mut c_void) -> c_int;
});

/// The CUDA runtime, loaded until the end of the process.
pub struct Cuda {
    library: Loaded,
    functions: Functions,
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

    /// A globally unique identifier of a GPU: `GPU-` and its UUID, in the format of nvidia-smi.
    ///
    /// # Errors
    /// If there is no such GPU.
    pub fn uuid(&self, device: usize) -> Result<String, Error> {
        let mut properties = [0u64; PROPERTIES_SIZE / size_of::<u64>()];
        // SAFETY: the function fills a struct that is smaller, and needs no more than this alignment.
        let code = unsafe { (self.functions.cudaGetDeviceProperties)(properties.as_mut_ptr().cast(), device as c_int) };
        self.check("cudaGetDeviceProperties", code)?;
        let bytes = properties.iter().flat_map(|word| word.to_ne_bytes()).skip(UUID_OFFSET).take(UUID_LEN);
        let mut uuid = String::from("GPU");
        for (index, byte) in bytes.enumerate() {
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
        let mut text = [0; ADDRESS_SIZE];
        // SAFETY: the function writes a zero-terminated text, and no more than the given number of bytes.
        let code = unsafe {
            (self.functions.cudaDeviceGetPCIBusId)(text.as_mut_ptr(), ADDRESS_SIZE as c_int, device as c_int)
        };
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

    fn check(&self, call: &'static str, code: c_int) -> Result<(), Error> {
        if code == 0 {
            return Ok(());
        }
        self.forget_error();
        // SAFETY: any code is allowed; the string is the runtime's own constant.
        let message = unsafe { CStr::from_ptr((self.functions.cudaGetErrorString)(code)) };
        Err(Error::Cuda { call, code, message: message.to_string_lossy().into_owned() })
    }

    /// Clears the runtime's last error of this thread; otherwise libtorch would take ours for its own.
    fn forget_error(&self) {
        // SAFETY: no preconditions.
        let _ = unsafe { (self.functions.cudaGetLastError)() };
    }
}

impl fmt::Debug for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cuda({})", self.library.path.display())
    }
}

/// A live stream owned elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamHandle(*mut c_void);

// SAFETY: CUDA streams may be used from any thread.
unsafe impl Send for StreamHandle {}
// SAFETY: as above.
unsafe impl Sync for StreamHandle {}

impl StreamHandle {
    /// The default stream, on which libtorch computes unless configured otherwise.
    pub const DEFAULT: Self = Self(std::ptr::null_mut());

    /// A `cudaStream_t`.
    ///
    /// # Safety
    /// `stream` belongs to the runtime that [`Cuda::load`] finds, and stays alive as long as the handle is used.
    pub unsafe fn from_raw(stream: *mut c_void) -> Self {
        Self(stream)
    }

    pub(crate) fn raw(self) -> *mut c_void {
        self.0
    }
}

/// An owned stream: a queue of work for the current GPU, not synchronized with the default stream.
#[derive(Debug)]
pub struct Stream {
    cuda: &'static Cuda,
    handle: StreamHandle,
}

impl Stream {
    /// A new stream on the thread's current GPU.
    ///
    /// # Errors
    /// If CUDA fails.
    pub fn new(cuda: &'static Cuda) -> Result<Self, Error> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: one handle is written.
        let code = unsafe { (cuda.functions.cudaStreamCreateWithFlags)(&mut raw, NON_BLOCKING) };
        cuda.check("cudaStreamCreateWithFlags", code)?;
        Ok(Self { cuda, handle: StreamHandle(raw) })
    }

    /// The handle, for slices.
    pub fn handle(&self) -> StreamHandle {
        self.handle
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed only here. CUDA finishes work in progress first.
        let _ = unsafe { (self.cuda.functions.cudaStreamDestroy)(self.handle.0) };
    }
}

/// A point in a stream's work.
///
/// Querying or dropping it makes its GPU the calling thread's current one: a thread without a current GPU would
/// otherwise use the first one and allocate memory there for a context.
#[derive(Debug)]
pub struct Event {
    cuda: &'static Cuda,
    device: usize,
    raw: *mut c_void,
}

// SAFETY: CUDA's events may be used from any thread.
unsafe impl Send for Event {}

impl Event {
    /// An event for this GPU's streams, not recorded yet.
    ///
    /// # Errors
    /// If CUDA fails.
    pub fn new(cuda: &'static Cuda, device: usize) -> Result<Self, Error> {
        cuda.set_device(device)?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: one handle is written.
        let code = unsafe { (cuda.functions.cudaEventCreateWithFlags)(&mut raw, DISABLE_TIMING) };
        cuda.check("cudaEventCreateWithFlags", code)?;
        Ok(Self { cuda, device, raw })
    }

    /// Records the event after all work currently enqueued on `stream`.
    ///
    /// # Errors
    /// If CUDA fails.
    pub fn record(&self, stream: StreamHandle) -> Result<(), Error> {
        // SAFETY: both are alive: the event is ours, the stream by the contract of its handle.
        let code = unsafe { (self.cuda.functions.cudaEventRecord)(self.raw, stream.0) };
        self.cuda.check("cudaEventRecord", code)
    }

    /// Makes all later work on `stream` wait for the event. The event may be dropped afterwards.
    ///
    /// # Errors
    /// If CUDA fails.
    pub fn make_wait(&self, stream: StreamHandle) -> Result<(), Error> {
        // SAFETY: as in `record`.
        let code = unsafe { (self.cuda.functions.cudaStreamWaitEvent)(stream.0, self.raw, 0) };
        self.cuda.check("cudaStreamWaitEvent", code)
    }

    /// Whether the GPU has passed the event; does not block.
    ///
    /// # Errors
    /// If the GPU failed.
    pub fn is_done(&self) -> Result<bool, Error> {
        self.cuda.set_device(self.device)?;
        // SAFETY: the event is ours and alive.
        match unsafe { (self.cuda.functions.cudaEventQuery)(self.raw) } {
            NOT_READY => {
                self.cuda.forget_error();
                Ok(false)
            }
            code => self.cuda.check("cudaEventQuery", code).map(|()| true),
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let _ = self.cuda.set_device(self.device);
        // SAFETY: created in `new`, destroyed only here. CUDA keeps it as long as work waits for it.
        let _ = unsafe { (self.cuda.functions.cudaEventDestroy)(self.raw) };
    }
}

/// GPU memory allocated without libtorch, for tests and benchmarks.
#[derive(Debug)]
pub struct DeviceMemory {
    cuda: &'static Cuda,
    pointer: *mut c_void,
    bytes: usize,
}

impl DeviceMemory {
    /// Allocates uninitialized memory on the thread's current GPU.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new(cuda: &'static Cuda, bytes: usize) -> Result<Self, Error> {
        let mut pointer = std::ptr::null_mut();
        // SAFETY: one pointer is written.
        cuda.check("cudaMalloc", unsafe { (cuda.functions.cudaMalloc)(&mut pointer, bytes) })?;
        Ok(Self { cuda, pointer, bytes })
    }

    /// Copies `from` to its beginning, after the work enqueued on `stream`; waits until done.
    ///
    /// # Errors
    /// If CUDA fails.
    ///
    /// # Panics
    /// If `from` does not fit.
    pub fn upload(&mut self, from: &[u8], stream: StreamHandle) -> Result<(), Error> {
        assert!(from.len() <= self.bytes, "{} bytes do not fit into {}", from.len(), self.bytes);
        // SAFETY: both are valid for `from.len()` bytes, and are borrowed until `copy` has waited.
        unsafe { self.copy(self.pointer, from.as_ptr().cast(), from.len(), stream) }
    }

    /// Copies its beginning to `to`, after the work enqueued on `stream`; waits until done.
    ///
    /// # Errors
    /// If CUDA fails.
    ///
    /// # Panics
    /// If `to` is longer than the memory.
    pub fn download(&self, to: &mut [u8], stream: StreamHandle) -> Result<(), Error> {
        assert!(to.len() <= self.bytes, "{} bytes were requested of {}", to.len(), self.bytes);
        // SAFETY: as in `upload`.
        unsafe { self.copy(to.as_mut_ptr().cast(), self.pointer, to.len(), stream) }
    }

    /// # Safety
    /// `to` and `from` are valid for `bytes` bytes until the call returns.
    unsafe fn copy(
        &self,
        to: *mut c_void,
        from: *const c_void,
        bytes: usize,
        stream: StreamHandle,
    ) -> Result<(), Error> {
        let cuda = &self.cuda.functions;
        // SAFETY: by the contract, and the wait below.
        let code = unsafe { (cuda.cudaMemcpyAsync)(to, from, bytes, COPY_DEFAULT, stream.0) };
        self.cuda.check("cudaMemcpyAsync", code)?;
        // SAFETY: the stream is alive by the contract of its handle.
        self.cuda.check("cudaStreamSynchronize", unsafe { (cuda.cudaStreamSynchronize)(stream.0) })
    }

    /// The whole memory as a slice for a collective.
    pub fn slice(&mut self, dtype: DType, stream: StreamHandle) -> DeviceSlice<'_> {
        // SAFETY: the memory is ours for `bytes` bytes; `cudaFree` waits for all work on the GPU before it releases.
        unsafe { DeviceSlice::from_raw_parts(self.pointer, self.bytes / dtype.size(), dtype, stream) }
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`, freed only here; waits for the GPU.
        let _ = unsafe { (self.cuda.functions.cudaFree)(self.pointer) };
    }
}
