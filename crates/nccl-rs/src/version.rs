//! Versions of NCCL, and the oldest supported one.

use std::fmt;

/// The environment variable for the path of the NCCL library.
pub const NCCL_VARIABLE: &str = "DDPM_NCCL_LIB";

/// The oldest supported version of NCCL: the first with `ncclCommFinalize`.
pub const MINIMUM: Version = Version(21_400);

/// A version of NCCL, in the library's own encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub(crate) i32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 2.8.4 is 2804, 2.10.3 is 21003: since 2.9 there is one more digit.
        let (major, rest) =
            if self.0 < 10_000 { (self.0 / 1000, self.0 % 1000) } else { (self.0 / 10_000, self.0 % 10_000) };
        write!(f, "{major}.{}.{}", rest / 100, rest % 100)
    }
}
