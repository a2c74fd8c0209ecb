//! Paths and addresses in arguments. Notation that only a shell or another program understands is refused, and the message
//! gives the spelling that works.

use std::path::PathBuf;

use ddpm_config::{check_address, check_path};

/// A file or folder of this machine.
pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    local(text).map(PathBuf::from)
}

/// The same as text, for arguments where a slash at the end matters.
pub(super) fn local(text: &str) -> Result<String, String> {
    check_path(text).map_err(|misspelt| misspelt.to_string())?;
    Ok(text.into())
}

/// A run, a folder of checkpoints, or the address of a store.
pub(super) fn address(text: &str) -> Result<String, String> {
    check_address(text).map_err(|misspelt| misspelt.to_string())?;
    Ok(text.into())
}

/// A PNG file to write.
pub(super) fn png(text: &str) -> Result<PathBuf, String> {
    let path = path(text)?;
    let fits = path.extension().is_some_and(|extension| extension == "png");
    if fits { Ok(path) } else { Err("pictures are PNG files, so give a name that ends in .png".into()) }
}
