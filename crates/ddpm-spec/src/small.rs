//! The small U-Net of MNIST tutorials.

use serde::Serialize;

use crate::check::in_range;
use crate::error::{Naming, SpecError};
use crate::image::ImageShape;
use crate::unet::{image_halves, widths};

/// Sizes of the small U-Net.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SmallUNetSpec {
    /// The images, as in and out of the network; each level halves both sides.
    pub image: ImageShape,
    /// Channels of the prediction.
    pub out_channels: i64,
    /// Width of each level, highest resolution first; the tutorial has 4, 10, 20, 40.
    pub channels: Vec<i64>,
    /// Width of the sinusoidal time embedding.
    pub time_width: i64,
}

impl SmallUNetSpec {
    /// The tutorial's width of the time embedding.
    pub const TIME_WIDTH: i64 = 60;

    /// Checks that the network can be built.
    ///
    /// # Errors
    /// [`SpecError`] in the field at fault.
    pub fn validate(&self, naming: Naming) -> Result<(), SpecError> {
        self.image.validate(naming)?;
        widths(&self.channels, naming)?;
        let even = |width: i64| width >= 2 && width % 2 == 0;
        for &width in &self.channels {
            in_range(&naming.path("channels"), width, even(width), "even and at least 2 in the small net")?;
        }
        in_range(&naming.path("time_width"), self.time_width, even(self.time_width), "even and at least 2")?;
        in_range(&naming.path("out_channels"), self.out_channels, self.out_channels >= 1, "at least 1")?;
        let levels = self.channels.len();
        image_halves(self.image, levels, levels, naming)
    }
}
