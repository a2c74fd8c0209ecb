//! A Parquet shard in Hugging Face's layout, with pages so small that reading one image reads little else.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::json;

use super::record::Record;
use crate::classes::Class;

/// A row group ends with whichever is reached first.
const GROUP_ROWS: usize = 1000;
const GROUP_BYTES: usize = 32 << 20;
/// A page of images ends after this many bytes.
const PAGE_BYTES: usize = 16 << 10;

/// Writes a Parquet file to `out`. The same records give the same bytes.
pub(super) struct ParquetShard<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    labelled: bool,
    images: Vec<ByteArray>,
    names: Vec<ByteArray>,
    labels: Vec<Option<u32>>,
    bytes: usize,
}

impl<W: Write + Send> ParquetShard<W> {
    pub(super) fn new(out: W, classes: &[Class]) -> Result<Self, ParquetError> {
        let labelled = !classes.is_empty();
        let label = if labelled { "optional int64 label;" } else { "" };
        let schema = format!(
            "message schema {{ optional group image {{ optional binary bytes; optional binary path (UTF8); }} {label} }}"
        );
        let mut features = json!({ "image": { "_type": "Image" } });
        if labelled {
            let names: Vec<&str> = classes.iter().map(|class| class.name.as_str()).collect();
            features["label"] = json!({ "names": names, "_type": "ClassLabel" });
        }
        let features = json!({ "info": { "features": features } }).to_string();
        let properties = WriterProperties::builder()
            .set_compression(Compression::UNCOMPRESSED)
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            .set_data_page_size_limit(PAGE_BYTES)
            // The limit is checked after each batch.
            .set_write_batch_size(1)
            .set_key_value_metadata(Some(vec![KeyValue::new("huggingface".to_owned(), features)]))
            .build();
        let writer = SerializedFileWriter::new(out, Arc::new(parse_message_type(&schema)?), Arc::new(properties))?;
        let (images, names, labels) = (Vec::new(), Vec::new(), Vec::new());
        Ok(ParquetShard { writer, labelled, images, names, labels, bytes: 0 })
    }

    /// Appends an image.
    pub(super) fn add(&mut self, record: Record) -> Result<(), ParquetError> {
        self.bytes += record.bytes.len();
        self.images.push(record.bytes.into());
        self.names.push(record.name.as_str().into());
        self.labels.push(record.class);
        match self.images.len() == GROUP_ROWS || self.bytes >= GROUP_BYTES {
            true => self.write_group(),
            false => Ok(()),
        }
    }

    pub(super) fn finish(mut self) -> Result<W, ParquetError> {
        self.write_group()?;
        self.writer.into_inner()
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        if self.images.is_empty() {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        // Both the struct and its field are there.
        let levels = vec![2; self.images.len()];
        for values in [&mut self.images, &mut self.names] {
            if let Some(mut column) = group.next_column()? {
                column.typed::<ByteArrayType>().write_batch(values, Some(&levels), None)?;
                column.close()?;
            }
            values.clear();
        }
        if let (true, Some(mut column)) = (self.labelled, group.next_column()?) {
            let levels: Vec<i16> = self.labels.iter().map(|label| i16::from(label.is_some())).collect();
            let values: Vec<i64> = self.labels.iter().flatten().map(|label| i64::from(*label)).collect();
            column.typed::<Int64Type>().write_batch(&values, Some(&levels), None)?;
            column.close()?;
        }
        group.close()?;
        self.labels.clear();
        self.bytes = 0;
        Ok(())
    }
}
