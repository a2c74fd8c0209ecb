//! `[data]`.

use ddpm_spec::{DataKind, Labels, OnCorrupt};
use serde::{Deserialize, Serialize};

use super::optional::zero_is_none;

/// `[data]`: the training images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataSettings {
    /// Kind of source. The one key that has no default in a file.
    pub kind: DataKind,
    /// File or folder to read, as the program sees it (`~` is not expanded). Required for `idx` and `folder`;
    /// empty, the default, for `synthetic` and `unknown`.
    pub path: String,
    /// Where class labels come from. Default `auto`: the source's own, if it has any.
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
    /// What happens if an image cannot be read. Default `error`.
    pub on_corrupt: OnCorrupt,
    /// Largest image file of a `folder` that is decoded, in millions of pixels; larger ones are unreadable. Default
    /// 200.
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

impl DataSettings {
    /// The largest image that is decoded, in pixels.
    pub fn max_pixels(&self) -> u64 {
        u64::from(self.max_megapixels) * 1_000_000
    }
}
