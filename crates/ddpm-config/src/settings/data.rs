//! `[data]`.

use ddpm_spec::{Alpha, DataKind, Fit, ImageSize, Labels, OnCorrupt, Shuffle};
use serde::{Deserialize, Serialize};

use super::optional::{empty_is_none, zero_is_none};

/// `[data]`: the training images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataSettings {
    /// Kind of source. The one key that has no default in a file.
    pub kind: DataKind,
    /// File or folder to read, as the program sees it (`~` is not expanded); for `parquet`, `webdataset` and `zip` also a
    /// pattern, or an address in an object store. Empty, the default, for `synthetic` and `unknown`; else required.
    pub path: String,
    /// Where class labels come from. Default `auto`: the source's own, if it has any.
    pub labels: Labels,
    /// Number of images drawn by `synthetic`; the other kinds count their files. Default 60000.
    pub count: u64,
    /// Size of the images given to the network, in pixels: one number for squares, or `[height, width]`. Default 32.
    pub image_size: ImageSize,
    /// Channels, 1 to 16: 1 is grey, 3 is RGB; `idx` and `synthetic` have no others. Default 1.
    pub channels: u32,
    /// Side of the central square cut out first, in source pixels; absent or 0: the whole image is used.
    #[serde(deserialize_with = "zero_is_none")]
    pub crop: Option<u32>,
    /// How images of another proportion are brought to `image_size`: `crop`, `pad` or `stretch`. Default `crop`.
    pub fit: Fit,
    /// What becomes of transparency: the colour behind it (`black`, `white`, `[red, green, blue]`, which also fills the
    /// margins of `fit = "pad"`), or `keep`, which makes opacity the last channel. Default `black`.
    pub alpha: Alpha,
    /// The stored values that become -1 and 1, as `[low, high]`; keeps all bits of 16-bit images and arrays, which
    /// are reduced to 8 bits otherwise. Absent or `[]`: 8 bits, 0 to 255.
    #[serde(deserialize_with = "empty_is_none")]
    pub range: Option<[f64; 2]>,
    /// Let the decoder of JPEG files shrink images that are at least twice as large as wanted: faster, and not quite the
    /// same pixels. Default false.
    pub jpeg_shrink: bool,
    /// Mirror half of the images left to right. Default false.
    pub flip: bool,
    /// The order of the images in an epoch; `shards` for files of many images only. Default `global`.
    pub shuffle: Shuffle,
    /// How many files `shuffle = "shards"` mixes with each other. Default 8.
    pub shuffle_window: u64,
    /// Decoding threads per rank. Default 1.
    pub workers: usize,
    /// What happens if an image cannot be read. Default `error`.
    pub on_corrupt: OnCorrupt,
    /// Folder of the indexes of `parquet`, `webdataset` and `zip` files, and of tar files decompressed for reading.
    /// Default: `ddpm-dist/data` in the user's cache folder; so does "".
    #[serde(deserialize_with = "zero_is_none")]
    pub cache_dir: Option<String>,
    /// Most that is kept in that folder of files in an object store, in GB (10^9 bytes), by all ranks of a machine
    /// together; 0: nothing. Default 10.
    pub cache_gb: f64,
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
            image_size: ImageSize::square(32),
            channels: 1,
            crop: None,
            fit: Fit::Crop,
            alpha: Alpha::BLACK,
            range: None,
            jpeg_shrink: false,
            flip: false,
            shuffle: Shuffle::Global,
            shuffle_window: 8,
            workers: 1,
            on_corrupt: OnCorrupt::Error,
            cache_dir: None,
            cache_gb: 10.0,
            max_megapixels: 200,
        }
    }
}

impl DataSettings {
    /// The number of files in a window of the shuffle, if it is one of windows.
    pub fn window(&self) -> Option<u64> {
        (self.shuffle == Shuffle::Shards).then_some(self.shuffle_window)
    }

    /// The largest image that is decoded, in pixels.
    pub fn max_pixels(&self) -> u64 {
        u64::from(self.max_megapixels) * 1_000_000
    }
}
