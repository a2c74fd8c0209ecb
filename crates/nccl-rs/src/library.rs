//! Finding a shared library and its functions.

use std::ffi::{OsStr, c_int};
use std::path::{Path, PathBuf};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use crate::Error;

/// glibc's flag: succeed only if the library is already loaded.
const RTLD_NOLOAD: c_int = 4;

/// A library that stays loaded until the end of the process, because it may have its own threads and exit handlers.
pub(crate) struct Loaded {
    library: Library,
    pub path: PathBuf,
    pub variable: &'static str,
}

impl Loaded {
    /// Searches for one of `names` in the order given in the crate's documentation.
    pub fn find(names: &[&str], variable: &'static str) -> Result<Self, Error> {
        if let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) {
            return Self::open(Path::new(&path), variable);
        }
        let loaded = names.iter().find_map(|name| Self::with_flags(name.as_ref(), variable, RTLD_NOLOAD).ok());
        if let Some(loaded) = loaded {
            return Ok(loaded);
        }
        let mut first = None;
        for name in names {
            match Self::open(Path::new(name), variable) {
                Ok(loaded) => return Ok(loaded),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.expect("at least one name is given"))
    }

    /// Loads the library at `path`.
    pub fn open(path: &Path, variable: &'static str) -> Result<Self, Error> {
        Self::with_flags(path.as_os_str(), variable, 0)
    }

    fn with_flags(name: &OsStr, variable: &'static str, flags: c_int) -> Result<Self, Error> {
        // SAFETY: loading runs the library's initializers, which have no preconditions for NCCL and the CUDA runtime; a
        // different file at a path set by the user is the user's choice, like LD_PRELOAD.
        match unsafe { Library::open(Some(name), RTLD_NOW | RTLD_LOCAL | flags) } {
            Ok(library) => Ok(Self { library, path: name.into(), variable }),
            Err(error) => Err(Error::NotLoaded { library: name.into(), message: error.to_string(), variable }),
        }
    }

    /// The address of a function.
    ///
    /// # Safety
    /// `F` must be the function pointer type of the library's function with this name.
    pub unsafe fn function<F: Copy>(&self, symbol: &'static str) -> Result<F, Error> {
        // SAFETY: the caller guarantees the type. The address outlives `Loaded`, whose owners are never dropped.
        match unsafe { self.library.get::<F>(symbol.as_bytes()) } {
            Ok(function) => Ok(*function),
            Err(_) => Err(Error::NoSymbol { library: self.path.clone(), symbol, variable: self.variable }),
        }
    }
}

/// Declares a struct of C functions, with each field named after its symbol, and how to fill it from a [`Loaded`].
macro_rules! functions {
    ($table:ident { $($name:ident($($argument:ty),*) -> $result:ty;)* }) => {
        #[allow(non_snake_case)] // the C names
        pub(crate) struct $table {
            $(pub(crate) $name: unsafe extern "C" fn($($argument),*) -> $result,)*
        }

        impl $table {
            fn of(library: &$crate::library::Loaded) -> Result<Self, $crate::Error> {
                // SAFETY: the types are those of the library's public header.
                unsafe { Ok(Self { $($name: library.function(stringify!($name))?,)* }) }
            }
        }
    };
}
pub(crate) use functions;
