//! The few functions of the CUDA runtime that collectives need: devices, streams, events, memory.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::path::Path;
use std::sync::OnceLock;

use crate::library::{Loaded, functions};
use crate::{DType, DeviceSlice, Error};

/// The environment variable with the path of the CUDA runtime's library.
pub const CUDART_VARIABLE: &str = "DDPM_CUDART_LIB";

/// `cudaErrorNoDevice`, `cudaErrorNotReady`.
const NO_DEVICE: c_int = 100;
const NOT_READY: c_int = 600;
/// `cudaStreamNonBlocking`: not ordered by the default stream; `cudaEventDisableTiming`; `cudaMemcpyDefault`: the
/// direction follows from the addresses.
const NON_BLOCKING: c_uint = 1;
const DISABLE_TIMING: c_uint = 2;
const EITHER_WAY: c_int = 4;
/// Bytes before and of the UUID in `cudaDeviceProp`, which every version of CUDA begins with a name of 256 bytes and it;
/// and room for all of that struct, of which versions have about 1 KiB.
const UUID_AT: usize = 256;
const UUID_LEN: usize = 16;
const PROPERTIES: usize = 8192;
/// Room for an address such as `0000:3b:00.0`, with the zero at its end.
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
    cudaEventCreateWithFlags(*mut *mut c_void, c_uint) -> c_int;
    cudaEventDestroy(*mut c_void) -> c_int;
    cudaEventRecord(*mut c_void, *mut c_void) -> c_int;
    cudaEventQuery(*mut c_void) -> c_int;
    cudaMalloc(*mut *mut c_void, usize) -> c_int;
    cudaFree(*mut c_void) -> c_int;
    cudaMemcpyAsync(*mut c_void, *const c_void, usize, c_int, *mut c_void) -> c_int;
});

/// The CUDA runtime, loaded to the end of the process.
pub struct Cuda {
    library: Loaded,
    functions: Functions,
}

impl Cuda {
    /// Finds and loads the runtime; see the [crate](crate) for where. Later calls return the same.
    ///
    /// # Errors
    /// There is none, or it lacks a function.
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
    /// It does not load, or lacks a function.
    pub fn open(path: &Path) -> Result<&'static Self, Error> {
        let library = Loaded::open(path, CUDART_VARIABLE)?;
        Ok(Box::leak(Box::new(Self { functions: Functions::of(&library)?, library })))
    }

    /// How many GPUs this process sees; `CUDA_VISIBLE_DEVICES` says which.
    ///
    /// # Errors
    /// There is no driver, or one older than the runtime.
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

    /// What tells a GPU from all others, on whatever machine: `GPU-` and its UUID, as nvidia-smi has it.
    ///
    /// # Errors
    /// There is no such GPU.
    pub fn uuid(&self, device: usize) -> Result<String, Error> {
        let mut properties = [0u64; PROPERTIES / size_of::<u64>()];
        // SAFETY: the function fills a struct that is smaller, and needs no more than this alignment.
        let code = unsafe { (self.functions.cudaGetDeviceProperties)(properties.as_mut_ptr().cast(), device as c_int) };
        self.check("cudaGetDeviceProperties", code)?;
        let bytes = properties.iter().flat_map(|word| word.to_ne_bytes()).skip(UUID_AT).take(UUID_LEN);
        let mut uuid = String::from("GPU");
        for (index, byte) in bytes.enumerate() {
            let dash = if matches!(index, 0 | 4 | 6 | 8 | 10) { "-" } else { "" };
            uuid += &format!("{dash}{byte:02x}");
        }
        Ok(uuid)
    }

    /// A GPU's address on its machine's PCI bus, such as `0000:3b:00.0`. Slices of one GPU (MIG) have it in common.
    ///
    /// # Errors
    /// There is no such GPU.
    pub fn pci_address(&self, device: usize) -> Result<String, Error> {
        let mut text = [0; ADDRESS];
        // SAFETY: the function writes a text with its end, and no more than the bytes that it is told of.
        let code =
            unsafe { (self.functions.cudaDeviceGetPCIBusId)(text.as_mut_ptr(), ADDRESS as c_int, device as c_int) };
        self.check("cudaDeviceGetPCIBusId", code)?;
        // SAFETY: the text ends within the array.
        Ok(unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned())
    }

    /// Whether this is the tests' stand-in of the kind that takes the host's memory for that of its GPUs.
    pub fn is_stand_in(&self) -> bool {
        // SAFETY: the function is looked for, and not called.
        unsafe { self.library.function::<unsafe extern "C" fn()>("host_memory_stands_in").is_ok() }
    }

    /// Makes a GPU the calling thread's current one.
    ///
    /// # Errors
    /// There is no such GPU, or it is not available.
    pub fn set_device(&self, device: usize) -> Result<(), Error> {
        // SAFETY: any number is allowed; a wrong one is an error.
        self.check("cudaSetDevice", unsafe { (self.functions.cudaSetDevice)(device as c_int) })
    }

    fn check(&self, call: &'static str, code: c_int) -> Result<(), Error> {
        if code == 0 {
            return Ok(());
        }
        self.forget_error();
        // SAFETY: any code is allowed; the string is the runtime's own constant.
        let words = unsafe { CStr::from_ptr((self.functions.cudaGetErrorString)(code)) };
        Err(Error::Cuda { call, code, words: words.to_string_lossy().into_owned() })
    }

    /// The runtime keeps a thread's last error for whoever asks next; libtorch would take ours for its own.
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

/// A live stream that is somebody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamHandle(*mut c_void);

// SAFETY: CUDA's streams may be used from any thread.
unsafe impl Send for StreamHandle {}
// SAFETY: as above.
unsafe impl Sync for StreamHandle {}

impl StreamHandle {
    /// The default stream, which libtorch computes on unless told otherwise.
    pub const DEFAULT: Self = Self(std::ptr::null_mut());

    /// A `cudaStream_t`.
    ///
    /// # Safety
    /// It is a stream of the runtime that [`Cuda::load`] finds, and alive as long as the handle is used.
    pub unsafe fn from_raw(stream: *mut c_void) -> Self {
        Self(stream)
    }

    pub(crate) fn raw(self) -> *mut c_void {
        self.0
    }
}

/// A stream of our own: a queue of work for the current GPU, not ordered by the default stream.
#[derive(Debug)]
pub struct Stream {
    cuda: &'static Cuda,
    handle: StreamHandle,
}

impl Stream {
    /// A new stream on the thread's current GPU.
    ///
    /// # Errors
    /// CUDA fails.
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
        // SAFETY: created in `new`, destroyed here only. Work under way is finished first, behind our back.
        let _ = unsafe { (self.cuda.functions.cudaStreamDestroy)(self.handle.0) };
    }
}

/// A point in a stream's work.
///
/// Whoever asks for it or drops it has its GPU as the thread's current one from then on: a thread that has none yet would
/// take the first, and memory there for a context of its own.
#[derive(Debug)]
pub struct Event {
    cuda: &'static Cuda,
    device: usize,
    raw: *mut c_void,
}

// SAFETY: CUDA's events may be used from any thread.
unsafe impl Send for Event {}

impl Event {
    /// An event of this GPU's streams that is not recorded yet.
    ///
    /// # Errors
    /// CUDA fails.
    pub fn new(cuda: &'static Cuda, device: usize) -> Result<Self, Error> {
        cuda.set_device(device)?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: one handle is written.
        let code = unsafe { (cuda.functions.cudaEventCreateWithFlags)(&mut raw, DISABLE_TIMING) };
        cuda.check("cudaEventCreateWithFlags", code)?;
        Ok(Self { cuda, device, raw })
    }

    /// Puts the event behind all that is enqueued on `stream` now.
    ///
    /// # Errors
    /// CUDA fails.
    pub fn record(&self, stream: StreamHandle) -> Result<(), Error> {
        // SAFETY: both are alive: the event is ours, the stream by the contract of its handle.
        let code = unsafe { (self.cuda.functions.cudaEventRecord)(self.raw, stream.0) };
        self.cuda.check("cudaEventRecord", code)
    }

    /// Holds all that is enqueued on `stream` from now on until the event has happened. The event may be dropped.
    ///
    /// # Errors
    /// CUDA fails.
    pub fn hold(&self, stream: StreamHandle) -> Result<(), Error> {
        // SAFETY: as in `record`.
        let code = unsafe { (self.cuda.functions.cudaStreamWaitEvent)(stream.0, self.raw, 0) };
        self.cuda.check("cudaStreamWaitEvent", code)
    }

    /// Whether the GPU has come past it; does not wait.
    ///
    /// # Errors
    /// The GPU failed.
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
        // SAFETY: created in `new`, destroyed here only. CUDA keeps what waits for it.
        let _ = unsafe { (self.cuda.functions.cudaEventDestroy)(self.raw) };
    }
}

/// Memory of a GPU, for what does not have libtorch to allocate it: checks and measurements.
#[derive(Debug)]
pub struct DeviceMemory {
    cuda: &'static Cuda,
    pointer: *mut c_void,
    bytes: usize,
}

impl DeviceMemory {
    /// Memory of the thread's current GPU, not initialized.
    ///
    /// # Errors
    /// There is not enough.
    pub fn new(cuda: &'static Cuda, bytes: usize) -> Result<Self, Error> {
        let mut pointer = std::ptr::null_mut();
        // SAFETY: one pointer is written.
        cuda.check("cudaMalloc", unsafe { (cuda.functions.cudaMalloc)(&mut pointer, bytes) })?;
        Ok(Self { cuda, pointer, bytes })
    }

    /// Fills it from the host, after what is enqueued on `stream`; waits for the end.
    ///
    /// # Errors
    /// CUDA fails.
    ///
    /// # Panics
    /// There is more than fits.
    pub fn upload(&mut self, from: &[u8], stream: StreamHandle) -> Result<(), Error> {
        assert!(from.len() <= self.bytes, "{} bytes do not fit into {}", from.len(), self.bytes);
        // SAFETY: both are valid for `from.len()` bytes, and are borrowed until `copy` has waited.
        unsafe { self.copy(self.pointer, from.as_ptr().cast(), from.len(), stream) }
    }

    /// Copies its beginning to the host, after what is enqueued on `stream`; waits for the end.
    ///
    /// # Errors
    /// CUDA fails.
    ///
    /// # Panics
    /// There is less than asked for.
    pub fn download(&self, to: &mut [u8], stream: StreamHandle) -> Result<(), Error> {
        assert!(to.len() <= self.bytes, "there are no {} bytes in {}", to.len(), self.bytes);
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
        let code = unsafe { (cuda.cudaMemcpyAsync)(to, from, bytes, EITHER_WAY, stream.0) };
        self.cuda.check("cudaMemcpyAsync", code)?;
        // SAFETY: the stream is alive by the contract of its handle.
        self.cuda.check("cudaStreamSynchronize", unsafe { (cuda.cudaStreamSynchronize)(stream.0) })
    }

    /// All of it as numbers, for a collective.
    pub fn slice(&mut self, dtype: DType, stream: StreamHandle) -> DeviceSlice<'_> {
        // SAFETY: the memory is ours for `bytes` bytes; `cudaFree` waits for all work on the GPU before it releases.
        unsafe { DeviceSlice::from_raw_parts(self.pointer, self.bytes / dtype.size(), dtype, stream) }
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`, freed here only; waits for the GPU.
        let _ = unsafe { (self.cuda.functions.cudaFree)(self.pointer) };
    }
}
