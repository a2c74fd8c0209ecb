//! The three formats behind one interface: scanning a shard, and reading one record of it.

use std::io;
use std::iter;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use ddpm_spec::{ShardFormat, ShardLabels};

use super::fault::Fault;
use super::record::{Place, Records};
use super::{parquet, webdataset, zip};
use crate::DataError;
use crate::cursor::Cursor;
use crate::ranges::{Ranges, Watched};

/// The format's name, in messages.
pub(super) fn noun(format: ShardFormat) -> &'static str {
    match format {
        ShardFormat::Parquet => "Parquet",
        ShardFormat::Webdataset => "tar",
        ShardFormat::Zip => "ZIP",
    }
}

/// The ends of the names of its files, in lower case; the first is that of the plain format.
pub(super) fn endings(format: ShardFormat) -> &'static [&'static str] {
    match format {
        ShardFormat::Parquet => &[".parquet"],
        ShardFormat::Webdataset => &[".tar", ".tar.gz", ".tgz", ".tar.zst"],
        ShardFormat::Zip => &[".zip"],
    }
}

/// Lists the records of the shard `path`, open as `file`.
///
/// # Errors
/// [`DataError::Format`] if it is damaged, of another format, or without usable images.
pub(super) fn scan(
    format: ShardFormat,
    path: &Path,
    file: Arc<dyn Ranges>,
    labels: &ShardLabels,
) -> Result<Records, DataError> {
    let file = Watched::new(file);
    let cursor = Cursor::new(Arc::clone(&file) as Arc<dyn Ranges>).map_err(DataError::io(path))?;
    let records = match format {
        ShardFormat::Parquet => parquet::scan(path, cursor, labels),
        ShardFormat::Webdataset => webdataset::scan(path, cursor, labels),
        ShardFormat::Zip => zip::scan(path, cursor, labels),
    };
    records.map_err(|error| file.failure().map_or(error, DataError::from))
}

/// What reading needs of a shard besides its index.
#[derive(Default)]
pub(super) struct Memory(parquet::Footer);

impl Memory {
    /// The image file at `place` of the shard open as `file`.
    pub(super) fn read(&self, file: Arc<dyn Ranges>, place: Place) -> Result<Vec<u8>, Fault> {
        let file = Watched::new(file);
        let content = match place {
            Place::Bytes { start, length } => webdataset::read(file.as_ref(), start, length),
            Place::Member { header, stored, length, crc, deflated } => {
                zip::read(file.as_ref(), header, stored, length, crc, deflated)
            }
            Place::Row { group, row } => self.0.read(Arc::clone(&file) as Arc<dyn Ranges>, group, row),
        };
        content.map_err(|fault| file.failure().map_or(fault, |unread| Fault::Io(io::Error::other(unread))))
    }

    /// What has to be read of the shard, which has so many bytes, before [`parts`](Self::parts) knows where the image
    /// file at `place` is.
    pub(super) fn missing(&self, bytes: u64, place: Place) -> Option<Range<u64>> {
        match place {
            Place::Row { .. } => self.0.missing(bytes),
            Place::Bytes { .. } | Place::Member { .. } => None,
        }
    }

    /// The parts of the shard open as `file` that reading the image file called `name` at `place` takes: as far as they
    /// are known.
    pub(super) fn parts(&self, file: Arc<dyn Ranges>, place: Place, name: &str) -> Vec<Range<u64>> {
        let Ok(bytes) = file.length() else { return Vec::new() };
        let parts = match place {
            Place::Bytes { start, length } => iter::once(start..start.saturating_add(length)).collect(),
            Place::Member { header, stored, .. } => vec![zip::place(header, stored, name)],
            Place::Row { group, row } => self.0.places(file, group, row),
        };
        // A damaged shard may say anything; what is wrong is reported when the record is read.
        parts.into_iter().map(|part| part.start..part.end.min(bytes)).filter(|part| !part.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn where_the_rows_of_a_new_file_are_is_known_before_any_is_read() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/data/plain.parquet");
        let file: Arc<dyn Ranges> = Arc::new(File::open(path).unwrap());
        let (length, memory, row) = (file.length().unwrap(), Memory::default(), Place::Row { group: 0, row: 0 });
        assert!(memory.missing(length, row).is_some_and(|end| end.end == length));
        let parts = memory.parts(Arc::clone(&file), row, "");
        assert!(!parts.is_empty() && parts.iter().all(|part| part.end < length), "{parts:?}");
        assert_eq!(memory.missing(length, row), None);
        assert!(memory.read(file, row).is_ok_and(|image| !image.is_empty()));
    }
}
