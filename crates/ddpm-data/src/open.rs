//! Opening a data set, and reading its first images.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use ddpm_spec::{DataSpec, Depth, Naming, SourceKind};

use crate::batch::{Batch, label};
use crate::error::DataError;
use crate::folder::Folder;
use crate::idx::Idx;
use crate::parallel;
use crate::pixels::Reader;
use crate::replace::read_or_next;
use crate::shards::Sharded;
use crate::source::{Source, image_bytes};
use crate::synthetic::Synthetic;

/// Opens a data set: reads IDX files completely, lists folders, checks everything that can be checked without decoding,
/// and logs its [findings](crate::Findings).
///
/// # Errors
/// Names the invalid file or setting and how to fix it.
pub fn open(spec: &DataSpec) -> Result<Arc<dyn Source>, DataError> {
    spec.validate(Naming::PLAIN)?;
    let source: Arc<dyn Source> = match &spec.kind {
        SourceKind::Idx { images, labels, split } => Arc::new(Idx::open(images, labels, *split, spec)?),
        SourceKind::Folder { root, split, labels } => {
            Arc::new(Folder::open(root, *split, labels, Reader::new(spec), spec.on_corrupt)?)
        }
        SourceKind::Shards(shards) => Arc::new(Sharded::open(shards, Reader::new(spec), spec.on_corrupt)?),
        SourceKind::Synthetic { count, seed } => Arc::new(Synthetic::new(*count, *seed, spec.image)),
    };
    source.findings().log();
    Ok(source)
}

/// The values of images as 8-bit levels, to be shown.
pub fn levels(depth: Depth, images: &[u8]) -> Cow<'_, [u8]> {
    let level = |value: &[u8; 4]| ((f32::from_ne_bytes(*value) + 1.0) * 127.5).round() as u8;
    match depth {
        Depth::Byte => images.into(),
        Depth::Float => images.as_chunks().0.iter().map(level).collect(),
    }
}

/// Reads `n` images from id `first` on, in the order of their ids, on up to `threads` threads: for previews and for
/// statistics of a data set. An unusable image is replaced as in training, if the source [`skips`](Source::skips) such
/// images.
///
/// # Errors
/// Those of [`Source::read`], of the first image that has one; ids beyond the end are an error.
pub fn preview(source: &dyn Source, first: u64, n: usize, threads: usize) -> Result<Batch, DataError> {
    let part = n.div_ceil(threads.max(1)).max(1);
    let ids = |at: usize| first + at as u64..first + (at + part).min(n) as u64;
    let ranges: Vec<Range<u64>> = (0..n).step_by(part).map(ids).collect();
    let parts = parallel::map_on(threads, &ranges, |ids| read(source, ids.clone()))?;
    let mut whole = Batch { first_position: first, ..Batch::default() };
    for part in parts {
        whole.images.extend(part.images);
        whole.labels.extend(part.labels);
        whole.ids.extend(part.ids);
        whole.skipped += part.skipped;
    }
    Ok(whole)
}

/// Reads the images with these ids.
fn read(source: &dyn Source, ids: Range<u64>) -> Result<Batch, DataError> {
    let bytes = image_bytes(source);
    let count = (ids.end - ids.start) as usize;
    let mut batch = Batch { images: vec![0; count * bytes], ..Batch::default() };
    for (id, out) in ids.zip(batch.images.chunks_exact_mut(bytes)) {
        let (read, class) = read_or_next(source, id, out)?;
        batch.labels.push(label(class));
        batch.ids.push(read);
        batch.skipped += u64::from(read != id);
    }
    Ok(batch)
}
