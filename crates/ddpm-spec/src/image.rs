//! The shape of images.

use std::fmt;

use serde::Serialize;

use crate::check::in_range;
use crate::error::{Naming, SpecError};
use crate::image_size::ImageSize;

/// The largest side of an image, in pixels.
const MAX_SIDE: usize = 4096;
/// The most channels of an image in a data set.
const MAX_CHANNELS: usize = 16;

/// The shape of an image: planar `channels, height, width`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ImageShape {
    /// 1 to 16 in a data set; a network may take any number.
    pub channels: usize,
    /// In pixels.
    pub height: usize,
    /// In pixels.
    pub width: usize,
}

impl ImageShape {
    /// Square images of this side.
    pub fn square(channels: usize, side: usize) -> Self {
        Self { channels, height: side, width: side }
    }

    /// Pixels of one channel.
    pub fn pixels(self) -> usize {
        self.height * self.width
    }

    /// Values of one image, over all channels; its bytes where a value is a byte.
    pub fn values(self) -> usize {
        self.channels * self.pixels()
    }

    /// Height and width.
    pub fn size(self) -> ImageSize {
        ImageSize { height: self.height as u32, width: self.width as u32 }
    }

    /// As the sizes of a tensor `[C, H, W]`.
    pub fn sizes(self) -> [i64; 3] {
        [self.channels, self.height, self.width].map(|size| size as i64)
    }

    /// Checks that a data set can have images of so many channels, in the field `image.channels`.
    ///
    /// # Errors
    /// [`SpecError`]: none, or more than 16.
    pub fn validate_channels(self, naming: Naming) -> Result<(), SpecError> {
        let within = format!("from 1 to {MAX_CHANNELS}");
        in_range(&naming.path("image.channels"), self.channels, (1..=MAX_CHANNELS).contains(&self.channels), within)
    }

    /// Checks that images of this shape can be worked on, in the fields `image.channels`, `image.height` and
    /// `image.width`.
    ///
    /// # Errors
    /// [`SpecError`]: a size out of range.
    pub fn validate(self, naming: Naming) -> Result<(), SpecError> {
        let within = format!("from 1 to {MAX_SIDE}");
        for (field, side) in [("image.height", self.height), ("image.width", self.width)] {
            in_range(&naming.path(field), side, (1..=MAX_SIDE).contains(&side), &within)?;
        }
        in_range(&naming.path("image.channels"), self.channels, self.channels > 0, "at least 1")
    }
}

impl fmt::Display for ImageShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.channels, self.height, self.width)
    }
}
