//! The SHA-256 of bytes, and of what a file or a folder of images holds, in hexadecimal.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use ddpm_data::images_below;
use sha2::{Digest, Sha256};

use crate::error::Error;

/// The SHA-256 of `bytes`.
pub(crate) fn of(bytes: impl AsRef<[u8]>) -> String {
    hex(Sha256::digest(bytes))
}

/// The SHA-256 of a file, or of the images below a folder: that of a list with a line for each, as `sha256sum` prints it.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn of_path(path: &Path) -> Result<String, Error> {
    if !path.is_dir() {
        return of_file(path);
    }
    let mut list = String::new();
    for image in images_below(path)? {
        let name = image.strip_prefix(path).unwrap_or(&image).display();
        list += &format!("{}  {name}\n", of_file(&image)?);
    }
    Ok(of(list))
}

fn of_file(path: &Path) -> Result<String, Error> {
    let digest = || -> io::Result<_> {
        let (mut file, mut hash) = (BufReader::new(File::open(path)?), Sha256::new());
        loop {
            let bytes = file.fill_buf()?;
            let length = bytes.len();
            if length == 0 {
                return Ok(hash.finalize());
            }
            hash.update(bytes);
            file.consume(length);
        }
    };
    digest().map(hex).map_err(|e| Error::file(path, e))
}

fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
