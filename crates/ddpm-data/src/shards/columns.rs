//! Which columns of a Parquet file are the images and their labels, by Hugging Face's metadata or by their names.

use std::path::Path;

use ddpm_spec::ShardLabels;
use parquet::basic::{ConvertedType, Type};
use parquet::file::metadata::FileMetaData;
use parquet::schema::types::ColumnDescriptor;
use serde_json::Value;

use crate::DataError;

/// The names of columns of images and of labels, where nothing else says which they are.
const IMAGES: [&str; 2] = ["image", "img"];
const LABELS: [&str; 1] = ["label"];

/// Numbers of leaf columns.
pub(super) struct Columns {
    /// The files.
    pub image: usize,
    /// Their names.
    pub path: Option<usize>,
    pub label: Option<usize>,
    /// The names of the classes.
    pub classes: Option<Vec<String>>,
}

impl Columns {
    /// Chooses the columns of the file at `path`.
    ///
    /// # Errors
    /// [`DataError::Format`] if there is no such column, or one cannot be what it should.
    pub(super) fn choose(path: &Path, file: &FileMetaData, labels: &ShardLabels) -> Result<Self, DataError> {
        let refuse = |reason: String| Err(DataError::format(path, reason));
        let leaves = file.schema_descr().columns();
        let leaf = |parts: &[&str]| leaves.iter().position(|leaf| leaf.path().parts() == parts);
        let mut roots: Vec<&str> = leaves.iter().map(|leaf| leaf.path().parts()[0].as_str()).collect();
        roots.dedup();
        let features = features(file);
        let of_type = |kind: &str| roots.iter().copied().find(|root| features[root]["_type"] == kind);
        let bytes_of = |root: &str| {
            let found = leaf(&[root, "bytes"]).or_else(|| leaf(&[root]))?;
            is_binary(&leaves[found]).then_some(found)
        };
        let candidates = || roots.iter().copied().filter(|root| bytes_of(root).is_some());
        let root = of_type("Image")
            .or_else(|| IMAGES.into_iter().find(|name| roots.contains(name)))
            .or_else(|| candidates().next().filter(|_| candidates().count() == 1));
        let Some(root) = root else {
            return refuse(format!(
                "no column is known to hold the images (columns: {}); name it image",
                roots.join(", ")
            ));
        };
        let Some(image) = bytes_of(root) else {
            return refuse(format!(
                "the column {root} does not hold image files: it is neither binary nor a struct of bytes and path; write \
                 it with Hugging Face's Image feature"
            ));
        };
        let root_of_label = match labels {
            ShardLabels::Auto => {
                LABELS.into_iter().find(|name| leaf(&[name]).is_some()).or_else(|| of_type("ClassLabel"))
            }
            ShardLabels::Field(name) => Some(name.as_str()),
            ShardLabels::None | ShardLabels::Folder => None,
        };
        let label = match root_of_label.map(|name| (name, leaf(&[name]))) {
            None => None,
            Some((_, Some(label))) if is_label(&leaves[label]) => Some(label),
            Some((name, Some(label))) => {
                let kind = leaves[label].physical_type();
                return refuse(format!("the column {name} of type {kind} cannot be a class; change data.labels"));
            }
            Some((name, None)) => {
                let columns = roots.join(", ");
                return refuse(format!("there is no column {name} (columns: {columns}); change data.labels"));
            }
        };
        let names = root_of_label.and_then(|name| features[name]["names"].as_array());
        let classes =
            names.map(|names| names.iter().map(|name| name.as_str().unwrap_or_default().to_owned()).collect());
        Ok(Columns { image, path: leaf(&[root, "path"]).filter(|leaf| is_text(&leaves[*leaf])), label, classes })
    }
}

/// The features that Hugging Face's `datasets` records in a file's metadata, by column; null if there are none.
fn features(file: &FileMetaData) -> Value {
    let entries = file.key_value_metadata().into_iter().flatten();
    let text = entries.filter(|entry| entry.key == "huggingface").find_map(|entry| entry.value.as_deref());
    let parsed: Option<Value> = text.and_then(|text| serde_json::from_str(text).ok());
    parsed.map_or(Value::Null, |mut value| value["info"]["features"].take())
}

/// One value per row, of any number of bytes, that is not text.
fn is_binary(leaf: &ColumnDescriptor) -> bool {
    is_text(leaf) && leaf.converted_type() != ConvertedType::UTF8
}

fn is_text(leaf: &ColumnDescriptor) -> bool {
    leaf.max_rep_level() == 0 && leaf.physical_type() == Type::BYTE_ARRAY
}

fn is_label(leaf: &ColumnDescriptor) -> bool {
    let kinds = [Type::BOOLEAN, Type::INT32, Type::INT64, Type::BYTE_ARRAY];
    leaf.max_rep_level() == 0 && kinds.contains(&leaf.physical_type())
}
