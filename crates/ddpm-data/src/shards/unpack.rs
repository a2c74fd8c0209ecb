//! Compressed tar files, which have no random access: decompressed once, into the cache.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;

use super::cache::Cache;
use super::stamp::Stamp;
use crate::DataError;
use crate::cursor::Cursor;
use crate::gzip;
use crate::ranges::{self, Ranges};

/// The first bytes of a zstd frame.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The file of the cache with the contents of the tar file at `path`, open as `file` in the state `stamp`; `None` if it
/// is not compressed. The checksums of gzip and zstd are verified when it is written.
///
/// # Errors
/// [`DataError::Format`] if the stream is damaged, or there is no room for its contents.
pub(super) fn plain(
    path: &Path,
    file: Arc<dyn Ranges>,
    stamp: Stamp,
    cache: &Cache,
) -> Result<Option<PathBuf>, DataError> {
    let file = ranges::Watched::new(file);
    let cursor = Cursor::new(Arc::clone(&file) as Arc<dyn Ranges>).map_err(DataError::io(path))?;
    let mut reader = BufReader::with_capacity(1 << 16, cursor);
    let start = io::BufRead::fill_buf(&mut reader).map_err(DataError::io(path))?;
    let (gzip, zstd) = (start.starts_with(&gzip::MAGIC), start.starts_with(&ZSTD));
    if !gzip && !zstd {
        return Ok(None);
    }
    let key = format!("{} {} {}", stamp.bytes, stamp.seconds, stamp.nanoseconds);
    let slot = cache.slot(path, &key, "tar").ok_or_else(|| {
        let reason = "a compressed tar file is decompressed into data.cache_dir before it is read, and there is no such \
                      folder; set data.cache_dir, or decompress the file";
        DataError::format(path, reason)
    })?;
    if slot.path.is_file() {
        return Ok(Some(slot.path.clone()));
    }
    tracing::info!("{}: decompressing into {}", path.display(), slot.path.display());
    // An error of writing must not be taken for a damaged stream.
    let mut unwritable = None;
    let done = slot.replace(|out| {
        let mut out = Watched { out, failed: &mut unwritable };
        match gzip {
            true => io::copy(&mut MultiGzDecoder::new(reader), &mut out)?,
            false => io::copy(&mut zstd::stream::read::Decoder::with_buffer(reader)?, &mut out)?,
        };
        Ok(())
    });
    match (done, unwritable) {
        (Ok(()), _) => Ok(Some(slot.path.clone())),
        (Err(_), Some(error)) => {
            let reason = format!(
                "its contents cannot be written to {} ({error}); make room, set data.cache_dir to another disk, or \
                 decompress the file",
                slot.path.display()
            );
            Err(DataError::format(path, reason))
        }
        (Err(error), None) => {
            if let Some(unread) = file.failure() {
                return Err(unread.into());
            }
            let kind = if gzip { "gzip" } else { "zstd" };
            Err(DataError::format(path, format!("the {kind} stream is damaged ({error}); fetch the file again")))
        }
    }
}

/// A file that remembers whether writing to it failed.
struct Watched<'a> {
    out: &'a mut File,
    failed: &'a mut Option<String>,
}

impl io::Write for Watched<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes).inspect_err(|error| *self.failed = Some(error.to_string()))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
