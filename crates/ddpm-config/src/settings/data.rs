//! `[data]`.

use serde::{Deserialize, Serialize};

use super::zero_is_none;
use crate::Labels;

/// `[data]`: what the run learns from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataSettings {
    /// Kind of source. The one key that has no default in a file.
    pub kind: DataKind,
    /// File or folder to read, as the program sees it (`~` is not expanded). Required for `idx` and `folder`;
    /// empty, the default, for `synthetic`.
    pub path: String,
    /// Where class labels come from. Default `auto`: the source's own, where it has any.
    pub labels: Labels,
    /// Number of images drawn by `synthetic`; the other kinds count their files. Default 60000.
    pub count: u64,
    /// Side of the square images given to the network, in pixels. Default 32.
    pub image_size: u32,
    /// Colour channels: 1 (grey) or 3 (RGB). Default 1.
    pub channels: u32,
    /// Side of the central square cut out before resizing, in source pixels; absent or 0: the largest that fits.
    #[serde(deserialize_with = "zero_is_none")]
    pub crop: Option<u32>,
    /// Mirror half of the images left to right. Default false.
    pub flip: bool,
    /// Decoding threads per rank. Default 1.
    pub workers: usize,
    /// What an unreadable image does. Default `error`.
    pub on_corrupt: OnCorrupt,
    /// Largest image file of a `folder` that is decoded, in millions of pixels; larger ones are unreadable. Default 200.
    pub max_megapixels: u32,
}

impl Default for DataSettings {
    fn default() -> Self {
        Self {
            kind: DataKind::Synthetic,
            path: String::new(),
            labels: Labels::Auto,
            count: 60_000,
            image_size: 32,
            channels: 1,
            crop: None,
            flip: false,
            workers: 1,
            on_corrupt: OnCorrupt::Error,
            max_megapixels: 200,
        }
    }
}

/// Kind of data source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataKind {
    /// The IDX files of MNIST and its relatives.
    Idx,
    /// A folder of image files, searched to any depth.
    Folder,
    /// A packed data set; reserved, refused by validation.
    Packed,
    /// Digits drawn by the program: no files needed.
    Synthetic,
}

/// What an unreadable image does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnCorrupt {
    /// Ends the run, naming the file.
    Error,
    /// Is replaced by another image and counted.
    Skip,
}
