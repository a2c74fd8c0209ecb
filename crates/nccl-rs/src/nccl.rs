//! The NCCL library: its version, its error messages, its raw calls, and the id by which ranks find each other.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::sync::OnceLock;

use crate::Error;
use crate::library::{Loaded, functions};
use crate::version::{MINIMUM, NCCL_VARIABLE, Version};

functions!(Functions {
    ncclGetErrorString(c_int) -> *const c_char;
    ncclGetLastError(*mut c_void) -> *const c_char;
    ncclGetUniqueId(*mut UniqueId) -> c_int;
    ncclCommInitRank(*mut *mut c_void, c_int, UniqueId, c_int) -> c_int;
    ncclCommGetAsyncError(*mut c_void, *mut c_int) -> c_int;
    ncclCommFinalize(*mut c_void) -> c_int;
    ncclCommDestroy(*mut c_void) -> c_int;
    ncclCommAbort(*mut c_void) -> c_int;
    ncclAllReduce(*const c_void, *mut c_void, usize, c_int, c_int, *mut c_void, *mut c_void) -> c_int;
    ncclGroupStart() -> c_int;
    ncclGroupEnd() -> c_int;
});

/// NCCL, loaded until the end of the process.
pub struct Nccl {
    library: Loaded,
    functions: Functions,
    version: Version,
}

impl Nccl {
    /// Finds and loads NCCL; see the [crate](crate) for where. Later calls return the same library.
    ///
    /// # Errors
    /// If NCCL is not found, is older than [`MINIMUM`], or lacks a function.
    pub fn load() -> Result<&'static Self, Error> {
        static LOADED: OnceLock<Nccl> = OnceLock::new();
        if let Some(loaded) = LOADED.get() {
            return Ok(loaded);
        }
        let loaded = Self::check(Loaded::find(&["libnccl.so.2", "libnccl.so"], NCCL_VARIABLE)?)?;
        Ok(LOADED.get_or_init(|| loaded))
    }

    /// Loads NCCL from a file.
    ///
    /// # Errors
    /// If the library does not load, is older than [`MINIMUM`], or lacks a function.
    pub fn open(path: &Path) -> Result<&'static Self, Error> {
        let loaded = Self::check(Loaded::open(path, NCCL_VARIABLE)?)?;
        Ok(Box::leak(Box::new(loaded)))
    }

    /// Checks the version first, so that an old library is reported as old rather than incomplete.
    fn check(library: Loaded) -> Result<Self, Error> {
        // SAFETY: the type is that of nccl.h, since NCCL 2.0.
        let get: unsafe extern "C" fn(*mut c_int) -> c_int = unsafe { library.function("ncclGetVersion")? };
        let mut number = 0;
        // SAFETY: the function writes one int.
        let code = unsafe { get(&mut number) };
        let version = Version(number);
        if code == 0 && version < MINIMUM {
            return Err(Error::TooOld { library: library.path, found: version });
        }
        let nccl = Self { functions: Functions::of(&library)?, library, version };
        nccl.check_code("ncclGetVersion", code)?;
        Ok(nccl)
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The name or path under which it was found.
    pub fn path(&self) -> &Path {
        &self.library.path
    }

    /// A new id, by which the ranks of one communicator find each other; generated on one of them.
    ///
    /// # Errors
    /// If NCCL finds no network interface.
    pub fn unique_id(&self) -> Result<UniqueId, Error> {
        let mut id = UniqueId([0; UniqueId::SIZE]);
        // SAFETY: the function fills 128 bytes, the size of the struct.
        let code = unsafe { (self.functions.ncclGetUniqueId)(&mut id) };
        self.check_code("ncclGetUniqueId", code)?;
        Ok(id)
    }

    fn check_code(&self, call: &'static str, code: c_int) -> Result<(), Error> {
        if code == 0 {
            return Ok(());
        }
        let text = |text: *const c_char| match text.is_null() {
            true => String::new(),
            // SAFETY: not null, so a zero-terminated string that NCCL does not free.
            false => unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned(),
        };
        // SAFETY: any code is allowed; the communicator is documented as unused, and may be null.
        let (message, last) = unsafe {
            (
                text((self.functions.ncclGetErrorString)(code)),
                text((self.functions.ncclGetLastError)(std::ptr::null_mut())),
            )
        };
        let message = if last.is_empty() { message } else { format!("{message} ({last})") };
        Err(Error::Nccl { call, code, message })
    }
}

/// The calls on a communicator. For all of them, `comm` comes from [`Nccl::init`] and is neither destroyed nor aborted.
impl Nccl {
    /// Waits for all `size` ranks; uses the thread's current GPU.
    pub(crate) fn init(&self, rank: usize, size: usize, id: &UniqueId) -> Result<*mut c_void, Error> {
        let mut comm = std::ptr::null_mut();
        // SAFETY: `comm` is written; the id is passed by value. A rank outside 0..size is an error of NCCL's.
        let code = unsafe { (self.functions.ncclCommInitRank)(&mut comm, size as c_int, *id, rank as c_int) };
        self.check_code("ncclCommInitRank", code)?;
        Ok(comm)
    }

    /// The error of an operation that was enqueued, if there is one.
    ///
    /// # Safety
    /// `comm` is alive.
    pub(crate) unsafe fn async_error(&self, comm: *mut c_void) -> Result<(), Error> {
        let mut error = 0;
        // SAFETY: `comm` is alive by the contract; one int is written.
        let code = unsafe { (self.functions.ncclCommGetAsyncError)(comm, &mut error) };
        self.check_code("ncclCommGetAsyncError", code)?;
        self.check_code("an NCCL operation on the GPU", error)
    }

    /// # Safety
    /// `comm` and `stream` are alive, and `pointer` is valid on the GPU for `len` elements until the operation is done.
    pub(crate) unsafe fn all_reduce(
        &self,
        pointer: *mut c_void,
        len: usize,
        dtype: c_int,
        reduction: c_int,
        comm: *mut c_void,
        stream: *mut c_void,
    ) -> Result<(), Error> {
        // SAFETY: by the contract; equal source and destination mean "in place".
        let code = unsafe { (self.functions.ncclAllReduce)(pointer, pointer, len, dtype, reduction, comm, stream) };
        self.check_code("ncclAllReduce", code)
    }

    /// Combines the operations that `body` calls into one, which starts when `body` returns.
    pub(crate) fn group(&self, body: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        // SAFETY: start and end only have to come in pairs, on one thread.
        self.check_code("ncclGroupStart", unsafe { (self.functions.ncclGroupStart)() })?;
        let called = body();
        // SAFETY: pairs with the start above.
        let ended = self.check_code("ncclGroupEnd", unsafe { (self.functions.ncclGroupEnd)() });
        called.and(ended)
    }

    /// Waits for the enqueued operations and frees the communicator.
    ///
    /// # Safety
    /// `comm` is alive, and is not used afterwards, whatever the result.
    pub(crate) unsafe fn finish(&self, comm: *mut c_void) -> Result<(), Error> {
        // SAFETY: by the contract.
        self.check_code("ncclCommFinalize", unsafe { (self.functions.ncclCommFinalize)(comm) })?;
        // SAFETY: by the contract; finalizing leaves it alive.
        self.check_code("ncclCommDestroy", unsafe { (self.functions.ncclCommDestroy)(comm) })
    }

    /// Frees the communicator without waiting for operations in progress.
    ///
    /// # Safety
    /// As for [`Nccl::finish`].
    pub(crate) unsafe fn abort(&self, comm: *mut c_void) {
        // SAFETY: by the contract. A failure can no longer be reported.
        let _ = unsafe { (self.functions.ncclCommAbort)(comm) };
    }
}

/// The id that the ranks of one communicator share; generated on one rank and sent to the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct UniqueId([u8; UniqueId::SIZE]);

impl UniqueId {
    /// The size in bytes.
    pub const SIZE: usize = 128;

    /// The bytes to send.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        self.0
    }

    /// The id from the bytes that were sent.
    pub fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        Self(bytes)
    }
}
