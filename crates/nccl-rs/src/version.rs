//! Which NCCL is taken.

use std::fmt;

/// The environment variable with the path of NCCL's library.
pub const NCCL_VARIABLE: &str = "DDPM_NCCL_LIB";

/// The oldest NCCL that is taken: the first with `ncclCommFinalize`.
pub const MINIMUM: Version = Version(21_400);

/// A version of NCCL, as its library numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub(crate) i32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 2.8.4 is 2804, 2.10.3 is 21003: from 2.9 on there is a digit more.
        let (major, rest) =
            if self.0 < 10_000 { (self.0 / 1000, self.0 % 1000) } else { (self.0 / 10_000, self.0 % 10_000) };
        write!(f, "{major}.{}.{}", rest / 100, rest % 100)
    }
}
