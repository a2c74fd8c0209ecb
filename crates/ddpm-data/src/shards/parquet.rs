//! Parquet files: one row is one image.

use std::error::Error;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use ddpm_spec::ShardLabels;
use parquet::basic::Type;
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{BoolType, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::serialized_reader::SerializedPageReader;

use super::columns::Columns;
use super::fault::Fault;
use super::labels::{Label, resolve};
use super::record::{Names, Place, Records};
use crate::DataError;
use crate::cursor::Cursor;
use crate::findings::IgnoredFiles;
use crate::guard::guarded;
use crate::ranges::Ranges;

/// Lists the rows of a file.
pub(super) fn scan(path: &Path, cursor: Cursor, labels: &ShardLabels) -> Result<Records, DataError> {
    guarded(|| rows(path, cursor, labels)).unwrap_or_else(|| {
        Err(DataError::format(path, "this Parquet file is damaged (its pages contradict its footer); fetch it again"))
    })
}

fn rows(path: &Path, cursor: Cursor, labels: &ShardLabels) -> Result<Records, DataError> {
    let kind = cursor.kind().map_err(DataError::io(path))?;
    let unreadable = |error: ParquetError| match (Fault::from(error), kind) {
        (Fault::Io(error), _) => DataError::io(path)(error),
        (Fault::Record(_), Some(kind)) => {
            DataError::format(path, format!("this is {kind}, not a Parquet file; fetch it again, or change data.kind"))
        }
        (Fault::Record(reason), None) => {
            DataError::format(path, format!("this Parquet file is damaged or truncated ({reason}); fetch it again"))
        }
    };
    let footer = read_footer(&cursor, PageIndexPolicy::Skip).map_err(unreadable)?;
    let columns = Columns::choose(path, footer.file_metadata(), labels)?;
    let file = Opened { cursor: Arc::new(cursor), footer: &footer };
    let mut names = Names::default();
    let (mut places, mut found, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
    for (group, metadata) in (0..).zip(footer.row_groups()) {
        let rows = u32::try_from(metadata.num_rows())
            .map_err(|_| DataError::format(path, format!("row group {group} has too many rows; fetch it again")))?;
        places.extend((0..rows).map(|row| Place::Row { group, row }));
        let image = metadata.column(columns.image);
        sizes.extend([rows.into(), image.uncompressed_size() as u64, image.compressed_size() as u64]);
        if let Some(column) = columns.path {
            for name in file.column::<ByteArrayType>(group, column).map_err(unreadable)? {
                names.push(&name.map_or(String::new(), |name| String::from_utf8_lossy(name.data()).into_owned()));
            }
        }
        match columns.label {
            Some(column) => found.extend(file.labels(group, column).map_err(unreadable)?),
            None => found.resize(places.len(), None),
        }
        if found.len() != places.len() || columns.path.is_some() && names.ends.len() != places.len() {
            let reason = format!("row group {group} has columns of different lengths; fetch it again");
            return Err(DataError::format(path, reason));
        }
    }
    if places.is_empty() {
        return Err(DataError::format(path, "this Parquet file has no rows; remove it, or fetch it again"));
    }
    let (labels, classes) = resolve(path, &names, found, columns.classes)?;
    let identity = Records::hash(&names, &places, &labels, &sizes);
    Ok(Records { places, labels, names, classes, ignored: IgnoredFiles::default(), identity })
}

/// The footer of a file and its column of images, read when they are first needed.
#[derive(Default)]
pub(super) struct Footer(OnceLock<(ParquetMetaData, usize)>);

impl Footer {
    /// The image file in a row.
    pub(super) fn read(&self, file: Arc<dyn Ranges>, group: u32, row: u32) -> Result<Vec<u8>, Fault> {
        let damaged = || Err(Fault::Record("the page of this row is damaged".into()));
        guarded(|| self.image(file, group, row)).unwrap_or_else(damaged)
    }

    fn image(&self, file: Arc<dyn Ranges>, group: u32, row: u32) -> Result<Vec<u8>, Fault> {
        let cursor = Cursor::new(file)?;
        let (footer, column) = self.load(&cursor)?;
        let mut reader = Opened { cursor: Arc::new(cursor), footer }.reader::<ByteArrayType>(group, *column)?;
        let (mut levels, mut values) = (Vec::new(), Vec::with_capacity(1));
        reader.skip_records(row as usize)?;
        reader.read_records(1, Some(&mut levels), None, &mut values)?;
        match values.pop() {
            Some(bytes) => Ok(bytes.data().to_vec()),
            None => {
                let reason = "this row has no bytes, at most the path of a file elsewhere (embed the images, as \
                              push_to_hub does)";
                Err(Fault::Record(reason.into()))
            }
        }
    }

    /// The end of a file of `length` bytes, in which its footer is, while that is not known.
    pub(super) fn missing(&self, length: u64) -> Option<Range<u64>> {
        self.0.get().is_none().then(|| length.saturating_sub(FOOTER)..length)
    }

    /// Where a row's image is: its page and the page of the dictionary, or the whole column if its pages are not known.
    /// Nothing for a column that is too large for that. Reads the footer if it is not known; nothing if it cannot be
    /// read, which shows when the image is.
    pub(super) fn places(&self, file: Arc<dyn Ranges>, group: u32, row: u32) -> Vec<Range<u64>> {
        let known = guarded(|| self.load(&Cursor::new(file).ok()?).ok()).flatten();
        let Some((footer, column)) = known else { return Vec::new() };
        let group = group as usize;
        let chunk = footer.row_group(group).column(*column);
        let start = u64::try_from(chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset()));
        // A damaged footer may say anything.
        let (Ok(start), Ok(whole)) = (start, u64::try_from(chunk.compressed_size())) else { return Vec::new() };
        let index = footer.page_index_for_row_group(group);
        let Some(pages) = index.page_locations(*column) else {
            return (whole <= WHOLE_CHUNK).then_some(start..start.saturating_add(whole)).into_iter().collect();
        };
        let number = pages.partition_point(|page| page.first_row_index <= i64::from(row)).saturating_sub(1);
        let (Some(first), Some(page)) = (pages.first(), pages.get(number)) else { return Vec::new() };
        let at = page.offset as u64;
        vec![start..first.offset as u64, at..at.saturating_add(page.compressed_page_size as u64)]
    }

    fn load(&self, cursor: &Cursor) -> Result<&(ParquetMetaData, usize), Fault> {
        if let Some(known) = self.0.get() {
            return Ok(known);
        }
        let footer = read_footer(cursor, PageIndexPolicy::Optional)?;
        let columns = Columns::choose(Path::new(""), footer.file_metadata(), &ShardLabels::None)
            .map_err(|error| Fault::Record(error.to_string()))?;
        Ok(self.0.get_or_init(|| (footer, columns.image)))
    }
}

/// The bytes of a whole column chunk that may be fetched for one row, where there is no index of its pages.
const WHOLE_CHUNK: u64 = 16 << 20;
/// The end of a file, in which its footer is unless the file is very large.
const FOOTER: u64 = 64 << 10;

/// A file and its footer.
struct Opened<'a> {
    cursor: Arc<Cursor>,
    footer: &'a ParquetMetaData,
}

impl Opened<'_> {
    fn reader<T: DataType>(&self, group: u32, column: usize) -> Result<ColumnReaderImpl<T>, ParquetError> {
        let metadata = self.footer.row_group(group as usize);
        let chunk = metadata.column(column);
        let pages = self.footer.page_index_for_row_group(group as usize).page_locations(column).cloned();
        let pages = SerializedPageReader::new(Arc::clone(&self.cursor), chunk, metadata.num_rows() as usize, pages)?;
        Ok(ColumnReaderImpl::new(chunk.column_descr_ptr(), Box::new(pages)))
    }

    /// All values of a column in a row group.
    fn column<T: DataType>(&self, group: u32, column: usize) -> Result<Vec<Option<T::T>>, ParquetError> {
        let metadata = self.footer.row_group(group as usize);
        let most = metadata.column(column).column_descr().max_def_level();
        let mut reader = self.reader::<T>(group, column)?;
        let (mut levels, mut values) = (Vec::new(), Vec::new());
        let (rows, ..) = reader.read_records(metadata.num_rows() as usize, Some(&mut levels), None, &mut values)?;
        let mut values = values.into_iter();
        Ok(match most {
            0 => values.map(Some).collect(),
            _ => levels.iter().take(rows).map(|level| (*level == most).then(|| values.next()).flatten()).collect(),
        })
    }

    fn labels(&self, group: u32, column: usize) -> Result<Vec<Option<Label>>, ParquetError> {
        let number = |value: Option<i64>| value.map(Label::Number);
        let text = |value: Option<parquet::data_type::ByteArray>| {
            value.map(|text| Label::Name(String::from_utf8_lossy(text.data()).into_owned()))
        };
        Ok(match self.footer.row_group(group as usize).column(column).column_type() {
            Type::BOOLEAN => {
                let values = self.column::<BoolType>(group, column)?.into_iter();
                values.map(|value| number(value.map(i64::from))).collect()
            }
            Type::INT32 => {
                let values = self.column::<Int32Type>(group, column)?.into_iter();
                values.map(|value| number(value.map(i64::from))).collect()
            }
            Type::INT64 => self.column::<Int64Type>(group, column)?.into_iter().map(number).collect(),
            _ => self.column::<ByteArrayType>(group, column)?.into_iter().map(text).collect(),
        })
    }
}

fn read_footer(cursor: &Cursor, index: PageIndexPolicy) -> Result<ParquetMetaData, ParquetError> {
    ParquetMetaDataReader::new().with_page_index_policy(index).parse_and_finish(cursor)
}

/// Decompressors also report damage as I/O errors; only those of the system have a number.
impl From<ParquetError> for Fault {
    fn from(error: ParquetError) -> Self {
        match error {
            ParquetError::External(cause) => match cause.downcast::<io::Error>() {
                Ok(cause) if cause.raw_os_error().is_some() => Fault::Io(*cause),
                Ok(cause) => Fault::Record(first_line(&cause)),
                Err(cause) => Fault::Record(first_line(&*cause)),
            },
            other => Fault::Record(first_line(&other)),
        }
    }
}

fn first_line(error: &dyn Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
