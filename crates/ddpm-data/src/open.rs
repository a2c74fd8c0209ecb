//! Opening a data set, and reading its first images.

use std::sync::Arc;

use ddpm_spec::{DataSpec, Naming, SourceKind};

use crate::error::DataError;
use crate::folder::Folder;
use crate::idx::Idx;
use crate::loader::{Batch, label};
use crate::pixels::Reader;
use crate::replace::read_or_next;
use crate::source::Source;
use crate::synthetic::Synthetic;

/// Opens a data set: reads IDX files completely, lists folders, checks everything that can be checked without decoding,
/// and logs its [findings](crate::Findings).
///
/// # Errors
/// Names the invalid file or setting and how to fix it.
pub fn open(spec: &DataSpec) -> Result<Arc<dyn Source>, DataError> {
    spec.validate(Naming::PLAIN)?;
    let image = spec.image;
    let source: Arc<dyn Source> = match &spec.kind {
        SourceKind::Idx { images, labels, split } => Arc::new(Idx::open(images, labels, *split, image, spec.crop)?),
        SourceKind::Folder { root, split, labels } => {
            let reader = Reader::new(image, spec.crop, spec.max_pixels);
            Arc::new(Folder::open(root, *split, labels, reader, spec.on_corrupt)?)
        }
        SourceKind::Synthetic { count, seed } => Arc::new(Synthetic::new(*count, *seed, image)),
    };
    source.findings().log();
    Ok(source)
}

/// Reads `n` images from id `first` on, in the order of their ids: for previews and for statistics of a data set. An
/// unusable image is replaced as in training, if the source [`skips`](Source::skips) such images.
///
/// # Errors
/// Those of [`Source::read`]; ids beyond the end are an error.
pub fn preview(source: &dyn Source, first: u64, n: usize) -> Result<Batch, DataError> {
    let bytes = source.image().values();
    let mut batch = Batch { first_position: first, images: vec![0; n * bytes], ..Batch::default() };
    for (id, out) in (first..).zip(batch.images.chunks_exact_mut(bytes)) {
        let (read, class) = read_or_next(source, id, out)?;
        batch.labels.push(label(class));
        batch.ids.push(read);
        batch.skipped += u64::from(read != id);
    }
    Ok(batch)
}
