//! Where a user's programs keep what they can make again.

use std::env;
use std::path::PathBuf;

/// The user's folder of caches, `XDG_CACHE_HOME` or `~/.cache`; `None` if neither it nor `HOME` is set.
pub fn user_caches() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))
}
