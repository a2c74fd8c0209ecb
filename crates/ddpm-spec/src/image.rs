//! The shape of images.

use std::fmt;

use serde::Serialize;

use crate::check::{in_range, require};
use crate::error::{Naming, SpecError};

/// The largest side of an image, in pixels.
const MAX_SIDE: usize = 4096;

/// The shape of an image: planar `channels, height, width`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ImageShape {
    /// 1 (grey) or 3 (RGB) in a data set; a network may take any number.
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

    /// As the sizes of a tensor `[C, H, W]`.
    pub fn sizes(self) -> [i64; 3] {
        [self.channels, self.height, self.width].map(|size| size as i64)
    }

    /// Checks that images of this shape can be shown, in the field `image.channels`.
    ///
    /// # Errors
    /// [`SpecError`]: neither grey nor RGB.
    pub fn validate_colours(self, naming: Naming) -> Result<(), SpecError> {
        let channels = self.channels;
        in_range(&naming.path("image.channels"), channels, matches!(channels, 1 | 3), "1 (grey) or 3 (RGB)")
    }

    /// Checks that images of this shape can be worked on, in the fields `image.channels`, `image.height` and
    /// `image.width`.
    ///
    /// # Errors
    /// [`SpecError`]: a size out of range, or an image that is not square.
    pub fn validate(self, naming: Naming) -> Result<(), SpecError> {
        let within = format!("from 1 to {MAX_SIDE}");
        for (field, side) in [("image.height", self.height), ("image.width", self.width)] {
            in_range(&naming.path(field), side, (1..=MAX_SIDE).contains(&side), &within)?;
        }
        in_range(&naming.path("image.channels"), self.channels, self.channels > 0, "at least 1")?;
        let (height, width) = (naming.path("image.height"), naming.path("image.width"));
        require(
            self.height == self.width,
            &width,
            || {
                format!(
                    "{width} = {} differs from {height} = {}, and only square images are supported",
                    self.width, self.height
                )
            },
            || format!("Set both to {}", self.height.min(self.width)),
        )
    }
}

impl fmt::Display for ImageShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.channels, self.height, self.width)
    }
}
