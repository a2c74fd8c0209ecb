//! From an image file to a planar square: identifies and decodes the file, converts colours, crops and scales.

mod colour;
mod fit;
mod jpeg;
mod kinds;
mod limits;
mod png;
mod segments;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use image::DynamicImage;

use crate::{DataError, ImageShape};
pub(crate) use colour::ColourNotices;
pub(crate) use fit::{pad, scale};
pub(crate) use kinds::name;
use limits::OVERHEAD;

/// Converts image files to images of one shape, and logs once how it converts their colours.
pub(crate) struct Reader {
    pub image: ImageShape,
    crop: Option<u32>,
    max_pixels: u64,
    notices: ColourNotices,
}

/// An upright image, interleaved.
struct Pixels {
    values: Vec<u8>,
    width: u32,
    height: u32,
    /// Bytes per pixel: 1 (grey) or 3 (RGB).
    channels: usize,
}

impl Reader {
    pub(crate) fn new(image: ImageShape, crop: Option<u32>, max_pixels: u64) -> Self {
        Reader { image, crop, max_pixels, notices: ColourNotices::default() }
    }

    /// Writes the image in `file`, located at `path`, to `out`, planar and with the shape `image`.
    ///
    /// # Errors
    /// [`DataError::Io`] if the file cannot be read, [`DataError::Image`] if it does not contain a usable image.
    pub(crate) fn read(&self, path: &Path, file: File, out: &mut [u8]) -> Result<(), DataError> {
        let limit = self.max_pixels.saturating_mul(8).saturating_add(OVERHEAD);
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(DataError::io(path))?;
        let unusable = |reason| DataError::Image { path: path.to_path_buf(), reason };
        if bytes.len() as u64 > limit {
            let reason = format!("this file is larger than any image of {} megapixels", self.max_pixels / 1_000_000);
            return Err(unusable(reason));
        }
        let decoded = decode(&bytes, self.max_pixels).map_err(unusable)?;
        self.notices.converted(path, decoded.channels, self.image.channels);
        let Pixels { values, width, height, channels } = decoded.reduce_channels(self.image.channels);
        scale(&values, (width, height), channels, self.crop, self.image, out).map_err(unusable)
    }
}

/// The shape of the image in `path`, as it is in the file.
///
/// # Errors
/// [`DataError::Io`] if the file cannot be read, [`DataError::Image`] if it does not contain a usable image.
pub(crate) fn shape(path: &Path, max_pixels: u64) -> Result<ImageShape, DataError> {
    let bytes = std::fs::read(path).map_err(DataError::io(path))?;
    let decoded = decode(&bytes, max_pixels);
    let decoded = decoded.map_err(|reason| DataError::Image { path: path.to_path_buf(), reason })?;
    Ok(ImageShape { channels: decoded.channels, height: decoded.height as usize, width: decoded.width as usize })
}

/// Decodes a JPEG or PNG, recognised by its content, upright (EXIF orientation applied). Transparent pixels are
/// composited over black. The error is a phrase that says what is wrong.
fn decode(bytes: &[u8], max_pixels: u64) -> Result<Pixels, String> {
    let image = match image::guess_format(bytes) {
        Ok(image::ImageFormat::Jpeg) => jpeg::decode(bytes, max_pixels)?,
        Ok(image::ImageFormat::Png) => png::decode(bytes, max_pixels)?,
        _ => return Err(kinds::refusal(bytes)),
    };
    Ok(Pixels::from(image))
}

impl From<DynamicImage> for Pixels {
    fn from(image: DynamicImage) -> Self {
        let (width, height, colour) = (image.width(), image.height(), image.color());
        let (values, channels) = match (colour.has_color(), colour.has_alpha()) {
            (false, false) => (image.into_luma8().into_raw(), 1),
            (false, true) => (colour::over_black::<2>(&image.into_luma_alpha8()), 1),
            (true, false) => (image.into_rgb8().into_raw(), 3),
            (true, true) => (colour::over_black::<4>(&image.into_rgba8()), 3),
        };
        Pixels { values, width, height, channels }
    }
}

impl Pixels {
    /// Converts to grey if only one channel is needed. Grey images keep one channel: that makes scaling cheaper, and
    /// [`scale`] fills all planes.
    fn reduce_channels(self, channels: usize) -> Self {
        if channels >= self.channels {
            return self;
        }
        Pixels { values: colour::grey(&self.values), channels: 1, ..self }
    }
}
