//! Finding a shared library and the functions in it.

use std::ffi::{OsStr, c_int};
use std::path::{Path, PathBuf};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use crate::Error;

/// glibc's flag: succeed only if the library is loaded already.
const RTLD_NOLOAD: c_int = 4;

/// A library that stays loaded to the end of the process: it may have threads and exit handlers of its own.
pub(crate) struct Loaded {
    library: Library,
    pub path: PathBuf,
    pub variable: &'static str,
}

impl Loaded {
    /// Finds one of `names` in the order that the crate's documentation gives.
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
        // SAFETY: loading runs the library's initializers, which for NCCL and the CUDA runtime have no preconditions;
        // another file at a path that the user gave is the user's choice, like LD_PRELOAD.
        match unsafe { Library::open(Some(name), RTLD_NOW | RTLD_LOCAL | flags) } {
            Ok(library) => Ok(Self { library, path: name.into(), variable }),
            Err(error) => Err(Error::NotLoaded { library: name.into(), words: error.to_string(), variable }),
        }
    }

    /// The address of a function.
    ///
    /// # Safety
    /// `F` must be the function pointer type of what the library has under this name.
    pub unsafe fn function<F: Copy>(&self, symbol: &'static str) -> Result<F, Error> {
        // SAFETY: the type is the caller's promise. The address outlives `Loaded`, whose owners are never dropped.
        match unsafe { self.library.get::<F>(symbol.as_bytes()) } {
            Ok(function) => Ok(*function),
            Err(_) => Err(Error::NoSymbol { library: self.path.clone(), symbol, variable: self.variable }),
        }
    }
}

/// Declares a struct of C functions, each field named as its symbol, and how it is filled from a [`Loaded`].
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
