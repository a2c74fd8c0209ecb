//! From an image file to a planar image of one shape: identifies and decodes the file, converts colours, fits the size.

mod coded;
mod colour;
mod decoded;
mod fit;
mod jpeg;
mod kinds;
mod lanczos;
mod level;
mod limits;
mod npy;
mod place;
mod png;
mod segments;
mod tiff;

use std::io::Read;
use std::path::Path;

use ddpm_spec::{Alpha, DataSpec, Depth, Fit};
use image::{ImageError, ImageFormat};

use crate::{DataError, ImageShape};
pub(crate) use colour::{Notices, margin};
pub(crate) use decoded::Pixels;
use decoded::{Decoded, Samples};
pub(crate) use fit::draw;
pub(crate) use kinds::{READ, extension, name};
use level::Level;
use limits::most_bytes;
pub(crate) use place::{Placement, Rect, cropped};

/// Converts image files to images of one shape, and logs once how it converts them.
pub(crate) struct Reader {
    pub image: ImageShape,
    crop: Option<u32>,
    fit: Fit,
    alpha: Alpha,
    range: Option<[f64; 2]>,
    jpeg_shrink: bool,
    max_pixels: u64,
    notices: Notices,
}

impl Reader {
    pub(crate) fn new(spec: &DataSpec) -> Self {
        let &DataSpec { image, crop, fit, alpha, range, jpeg_shrink, max_pixels, .. } = spec;
        Reader { image, crop, fit, alpha, range, jpeg_shrink, max_pixels, notices: Notices::default() }
    }

    /// How values are written by [`read`](Self::read).
    pub(crate) fn depth(&self) -> Depth {
        Depth::of_range(self.range)
    }

    /// Writes the image in `file`, located or named `path`, to `out`, planar and with the shape `image`.
    ///
    /// # Errors
    /// [`DataError::Io`] if the file cannot be read, [`DataError::Image`] if it does not contain a usable image.
    pub(crate) fn read(&self, path: &Path, file: impl Read, out: &mut [u8]) -> Result<(), DataError> {
        let mut bytes = Vec::new();
        file.take(most_bytes(self.max_pixels).saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(DataError::io(path))?;
        let unusable = |reason| DataError::Image { path: path.to_path_buf(), reason };
        self.check_file(bytes.len() as u64).map_err(unusable)?;
        self.decode(path, &bytes, out).map_err(unusable)
    }

    /// Refuses a file of more bytes than an image of the largest size has; the error is a phrase that says so.
    pub(crate) fn check_file(&self, bytes: u64) -> Result<(), String> {
        match bytes <= most_bytes(self.max_pixels) {
            true => Ok(()),
            false => Err(format!("this file is larger than any image of {} megapixels", self.max_pixels / 1_000_000)),
        }
    }

    /// The same for the content of a file. The error is a phrase that says what is wrong.
    pub(crate) fn decode(&self, path: &Path, bytes: &[u8], out: &mut [u8]) -> Result<(), String> {
        let decoded = decode(bytes, self.max_pixels, Some(self.image.channels), |width, height| {
            if self.jpeg_shrink { self.most_shrunk(width, height) } else { 1 }
        })?;
        let opacity = usize::from(self.alpha == Alpha::Keep);
        self.notices.converted(path, decoded.colours(), self.image.channels - opacity);
        let Some(range) = self.range else {
            if matches!(decoded.samples, Samples::Words(_)) {
                self.notices.reduced(path);
            }
            return self.fit(decoded.into_bytes()?, out);
        };
        let mut levels = vec![0.0; self.image.values()];
        self.fit(decoded.into_floats(range)?, &mut levels)?;
        for (out, level) in out.as_chunks_mut().0.iter_mut().zip(levels) {
            *out = (2.0 * level - 1.0).clamp(-1.0, 1.0).to_ne_bytes();
        }
        Ok(())
    }

    fn fit<L: Level>(&self, pixels: Pixels<L>, out: &mut [L]) -> Result<(), String> {
        let pixels = pixels.with_channels(self.image.channels, self.alpha)?;
        let placement = self.placement(pixels.width, pixels.height)?;
        draw(&pixels, placement, &margin(self.alpha, self.image.channels), self.image, out)
    }

    fn placement(&self, width: u32, height: u32) -> Result<Placement, String> {
        Ok(Placement::of(cropped((width, height), self.crop)?, size(self.image), self.fit))
    }

    /// The most that a decoder may shrink an image, by 2, 4 or 8, so that it need not be enlarged again.
    fn most_shrunk(&self, width: u32, height: u32) -> u32 {
        // The reason for refusing an image is given when it is fitted.
        let Ok(Placement { from, to }) = self.placement(width, height) else { return 1 };
        let is_enough = |by: &u32| to.width * by <= from.width && to.height * by <= from.height;
        [8, 4, 2].into_iter().find(is_enough).unwrap_or(1)
    }
}

/// The shape of the image in `path`, as it is in the file, without its opacity.
///
/// # Errors
/// [`DataError::Io`] if the file cannot be read, [`DataError::Image`] if it does not contain a usable image.
pub(crate) fn shape(path: &Path, max_pixels: u64) -> Result<ImageShape, DataError> {
    let bytes = std::fs::read(path).map_err(DataError::io(path))?;
    let decoded = decode(&bytes, max_pixels, None, |_, _| 1);
    let decoded = decoded.map_err(|reason| DataError::Image { path: path.to_path_buf(), reason })?;
    Ok(ImageShape { channels: decoded.colours(), height: decoded.height as usize, width: decoded.width as usize })
}

/// Width and height of the image in a file, by its header; `None` if that does not say it. `channels` tells the axes of
/// an array apart.
pub(crate) fn stored_size(bytes: &[u8], channels: usize) -> Option<(usize, usize)> {
    if bytes.starts_with(npy::MAGIC) {
        return npy::size(bytes, channels);
    }
    imagesize::blob_size(bytes).ok().map(|size| (size.width, size.height))
}

/// A file of planar values, without loss: a PNG of grey or RGB in bytes, else a NumPy array.
pub(crate) fn encode(values: &[u8], image: ImageShape, depth: Depth) -> Result<Vec<u8>, ImageError> {
    match (depth, image.channels) {
        (Depth::Byte, 1 | 3) => png::encode(values, image),
        _ => Ok(npy::encode(values, image, depth)),
    }
}

/// Width and height of an image.
pub(crate) fn size(image: ImageShape) -> (u32, u32) {
    (image.width as u32, image.height as u32)
}

/// Decodes a file, recognised by its content, upright. `channels` tells the axes of an array apart; without it, the
/// shorter of the first and the last is that of channels. A JPEG is shrunk by `shrink(width, height)`. The error is a
/// phrase that says what is wrong.
fn decode(
    bytes: &[u8],
    max_pixels: u64,
    channels: Option<usize>,
    shrink: impl Fn(u32, u32) -> u32,
) -> Result<Decoded, String> {
    if bytes.starts_with(npy::MAGIC) {
        return npy::decode(bytes, max_pixels, channels);
    }
    Ok(match image::guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => jpeg::decode(bytes, max_pixels, shrink)?,
        Ok(ImageFormat::Png) => png::decode(bytes, max_pixels)?.into(),
        Ok(ImageFormat::WebP) => coded::webp(bytes, max_pixels)?.into(),
        Ok(ImageFormat::Gif) => coded::gif(bytes, max_pixels)?.into(),
        Ok(ImageFormat::Bmp) => coded::bmp(bytes, max_pixels)?.into(),
        Ok(ImageFormat::Tiff) => tiff::decode(bytes, max_pixels)?,
        _ => return Err(kinds::refusal(bytes)),
    })
}
