//! `data.labels`: where class labels come from, written as one string.

use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where class labels come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Labels {
    /// `auto`: the source's own. `idx`: the label file beside the images, if there is one; `synthetic`: the digit
    /// drawn; `folder`: none; `parquet`, `webdataset` and `zip`: see [`ShardLabels::Auto`](crate::ShardLabels::Auto).
    Auto,
    /// `none`: no labels.
    None,
    /// `folder`: each sub-folder is a class, numbered in the order of their names.
    Folder,
    /// `field:NAME`: a column of Parquet files; in WebDataset an extension, or a key in `.json`.
    Field(String),
    /// `attribute:NAME`: a column of the CelebA attribute list, -1 as class 0 and 1 as class 1.
    Attribute(String),
    /// A label file for `idx`, distinguished from the words above by a `/` or a `.` in it.
    Path(String),
}

const FORMS: &[&str] = &["auto", "none", "folder", "field:NAME", "attribute:NAME", "./FILE"];

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::None => f.write_str("none"),
            Self::Folder => f.write_str("folder"),
            Self::Field(name) => write!(f, "field:{name}"),
            Self::Attribute(name) => write!(f, "attribute:{name}"),
            Self::Path(path) => f.write_str(path),
        }
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Labels, E> {
                match text {
                    "auto" => Ok(Labels::Auto),
                    "none" => Ok(Labels::None),
                    "folder" => Ok(Labels::Folder),
                    _ => match text.split_once(':') {
                        Some(("attribute", name)) if !name.is_empty() => Ok(Labels::Attribute(name.into())),
                        Some(("field", name)) if !name.is_empty() => Ok(Labels::Field(name.into())),
                        Some(("attribute" | "field", _)) => Err(E::unknown_variant(text, FORMS)),
                        _ if text.contains(['/', '.']) => Ok(Labels::Path(text.into())),
                        _ => Err(E::unknown_variant(text, FORMS)),
                    },
                }
            }
        }
        deserializer.deserialize_str(Text)
    }
}
