//! The crate through its public interface: every source, the order and the loader.

mod celeba;
mod files;
mod folder;
mod formats;
mod idx;
mod jpeg;
mod listing;
mod loader;
mod order;
mod pack;
mod pictures;
mod shards;
mod shrunk;
mod synthetic;
mod windows;
mod wrong_shards;

use std::path::PathBuf;
use std::sync::Arc;

use ddpm_data::{Alpha, DataError, DataSpec, Fit, ImageShape, OnCorrupt, Source, SourceKind, open};

/// `kind` at `image_size` with `channels`, without crop, for files of up to one megapixel.
fn spec(kind: SourceKind, image_size: usize, channels: usize) -> DataSpec {
    let image = ImageShape::square(channels, image_size);
    DataSpec {
        kind,
        image,
        crop: None,
        fit: Fit::Crop,
        alpha: Alpha::BLACK,
        range: None,
        jpeg_shrink: false,
        max_pixels: 1_000_000,
        on_corrupt: OnCorrupt::Error,
    }
}

/// Opens `kind` at `image_size` with `channels`, without crop.
fn source(kind: SourceKind, image_size: usize, channels: usize) -> Result<Arc<dyn Source>, DataError> {
    open(&spec(kind, image_size, channels))
}

/// Digits, the source that needs no files.
fn digits(count: u64) -> Arc<dyn Source> {
    source(SourceKind::Synthetic { count, seed: 7 }, 16, 1).expect("digits need no files")
}

/// Asserts that `result` is an error whose message contains all of `parts`.
fn check_refused<T>(result: Result<T, DataError>, parts: &[&str]) {
    let message = result.map(|_| ()).expect_err("this must be refused").to_string();
    for part in parts {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
}

/// One image of a source and its class.
fn read(source: &dyn Source, id: u64) -> Result<(Vec<u8>, Option<u32>), DataError> {
    let mut out = vec![0xaa; source.image().values()];
    let class = source.read(id, &mut out)?;
    Ok((out, class))
}

/// Writes a file with these bytes in `folder`.
fn write(folder: &tempfile::TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::create_dir_all(path.parent().expect("inside the folder")).expect("folder");
    std::fs::write(&path, bytes).expect("file");
    path
}

/// A pipe in `folder` without a writer: opening it would block forever.
fn pipe(folder: &tempfile::TempDir, name: &str) -> PathBuf {
    let path = folder.path().join(name);
    let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo is part of coreutils");
    assert!(made.success());
    path
}
