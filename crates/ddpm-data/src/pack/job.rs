//! Packing: ranges of ids, each written to a shard of its own, on all processors.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use parquet::errors::ParquetError;

use super::hashing::Hashing;
use super::manifest::{MADE_BY, Manifest, NAME, PackFormat, PackedShard};
use super::parquet::ParquetShard;
use super::record::{Record, record};
use super::tar::TarShard;
use crate::classes::Class;
use crate::source::image_bytes;
use crate::{DataError, Source, Split, parallel};

/// How to pack.
#[derive(Clone, Debug)]
pub struct Packing {
    /// The format of the shards.
    pub format: PackFormat,
    /// The split that their names say.
    pub split: Split,
    /// Images in each shard but the last.
    pub per_shard: u64,
    /// Whether to store images of the shape of [`Source::image`] in place of the original files: as PNG, or as NumPy
    /// arrays if they are neither grey nor RGB, or have more than 8 bits. What is not stored as image files, such as
    /// IDX, always is.
    pub resized: bool,
}

/// Packs all images into files in `folder`, in the order of their ids, with a manifest. The same data set gives the
/// same bytes, for any number of processors. Unusable images are left out if the source [`skips`](Source::skips) them.
/// `done` counts the images that have been begun so far.
///
/// # Errors
/// Those of [`Source::read`]; [`DataError::Write`] if something cannot be written, or `folder` is not empty.
pub fn pack(source: &dyn Source, folder: &Path, packing: &Packing, done: &AtomicU64) -> Result<Manifest, DataError> {
    fs::create_dir_all(folder).map_err(DataError::write(folder))?;
    if fs::read_dir(folder).map_err(DataError::io(folder))?.next().is_some() {
        return Err(DataError::format(folder, "this folder is not empty; empty it, or give another one"));
    }
    let per_shard = packing.per_shard.max(1);
    let ranges: Vec<Range<u64>> = (0..source.len().div_ceil(per_shard))
        .map(|shard| shard * per_shard..((shard + 1) * per_shard).min(source.len()))
        .collect();
    let classes = source.class_table();
    let numbered: Vec<(usize, Range<u64>)> = ranges.into_iter().enumerate().collect();
    let shards = parallel::map(&numbered, |(number, ids)| {
        let ending = match packing.format {
            PackFormat::Parquet => "parquet",
            PackFormat::Webdataset => "tar",
        };
        let name = format!("{}-{number:05}-of-{:05}.{ending}", packing.split, numbered.len());
        shard(source, folder, name, ids.clone(), packing, &classes, done)
    })?;
    let (shards, empty): (Vec<_>, Vec<_>) = shards.into_iter().partition(|shard| shard.images > 0);
    if shards.is_empty() {
        return Err(DataError::Setting("none of the images can be used; correct data.path".into()));
    }
    for shard in empty {
        let path = folder.join(shard.name);
        fs::remove_file(&path).map_err(DataError::write(&path))?;
    }
    let images = shards.iter().map(|shard| shard.images).sum();
    let shape = source.image();
    let manifest = Manifest {
        made_by: MADE_BY.into(),
        format: packing.format,
        images,
        left_out: source.len() - images,
        resized: packing.resized.then_some([shape.channels, shape.height, shape.width]),
        classes: classes.into_iter().map(|class| (class.name, class.images)).collect(),
        shards,
    };
    let path = folder.join(NAME);
    manifest.save(folder).map_err(DataError::write(&path))?;
    Ok(manifest)
}

/// Writes one shard.
fn shard(
    source: &dyn Source,
    folder: &Path,
    name: String,
    ids: Range<u64>,
    packing: &Packing,
    classes: &[Class],
    done: &AtomicU64,
) -> Result<PackedShard, DataError> {
    let path = folder.join(&name);
    let unwritable = || DataError::write(&path);
    let file = Hashing::new(BufWriter::new(File::create(&path).map_err(unwritable())?));
    let mut writer = match packing.format {
        PackFormat::Parquet => {
            Writer::Parquet(Box::new(ParquetShard::new(file, classes).map_err(io_error).map_err(unwritable())?))
        }
        PackFormat::Webdataset => Writer::Tar(TarShard::new(file)),
    };
    let mut values = vec![0; image_bytes(source)];
    let mut images = 0;
    for id in ids {
        done.fetch_add(1, Ordering::Relaxed);
        let record = match (record(source, id, packing.resized, &mut values), source.skips()) {
            (Err(error @ DataError::Image { .. }), Some(_)) => {
                tracing::warn!("left out: {}", error.fault());
                continue;
            }
            (record, _) => record?,
        };
        writer.add(id, record).map_err(unwritable())?;
        images += 1;
    }
    let file = writer.finish().map_err(unwritable())?;
    let (bytes, sha256) = (file.bytes, file.hex());
    let file = file.out.into_inner().map_err(|error| unwritable()(error.into_error()))?;
    file.sync_all().map_err(unwritable())?;
    Ok(PackedShard { name, images, bytes, sha256 })
}

/// A shard in either format.
enum Writer<W: Write + Send> {
    Parquet(Box<ParquetShard<W>>),
    Tar(TarShard<W>),
}

impl<W: Write + Send> Writer<W> {
    fn add(&mut self, id: u64, record: Record) -> io::Result<()> {
        match self {
            Writer::Parquet(shard) => shard.add(record).map_err(io_error),
            Writer::Tar(shard) => shard.add(id, &record),
        }
    }

    fn finish(self) -> io::Result<W> {
        match self {
            Writer::Parquet(shard) => shard.finish().map_err(io_error),
            Writer::Tar(shard) => shard.finish(),
        }
    }
}

fn io_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(cause) => match cause.downcast::<io::Error>() {
            Ok(cause) => *cause,
            Err(cause) => io::Error::other(cause),
        },
        other => io::Error::other(other),
    }
}
