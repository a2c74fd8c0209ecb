//! Decoding by the `image` crate: WebP, GIF and BMP, and what they have in common with PNG.

use std::io::{self, Cursor};

use image::codecs::bmp::BmpDecoder;
use image::codecs::gif::GifDecoder;
use image::codecs::webp::WebPDecoder;
use image::{DynamicImage, ImageDecoder, ImageError, ImageResult, Limits};

use super::limits::{check_size, most_bytes};

/// Decodes a WebP, upright; of an animation, its first picture.
pub(super) fn webp(bytes: &[u8], max_pixels: u64) -> Result<DynamicImage, String> {
    decode("WebP", WebPDecoder::new(Cursor::new(bytes)), max_pixels)
}

/// Decodes the first picture of a GIF.
pub(super) fn gif(bytes: &[u8], max_pixels: u64) -> Result<DynamicImage, String> {
    decode("GIF", GifDecoder::new(Cursor::new(bytes)), max_pixels)
}

/// Decodes a BMP.
pub(super) fn bmp(bytes: &[u8], max_pixels: u64) -> Result<DynamicImage, String> {
    decode("BMP", BmpDecoder::new(Cursor::new(bytes)), max_pixels)
}

/// Decodes an image by its decoder, upright; `format` is its name in errors.
pub(super) fn decode(
    format: &str,
    decoder: ImageResult<impl ImageDecoder>,
    max_pixels: u64,
) -> Result<DynamicImage, String> {
    let phrase = |error| phrase(format, error);
    let mut decoder = decoder.map_err(phrase)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height, max_pixels)?;
    decoder.set_limits(limits(max_pixels)).map_err(phrase)?;
    let orientation = decoder.orientation().map_err(phrase)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(phrase)?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// What a decoder may allocate.
pub(super) fn limits(max_pixels: u64) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(most_bytes(max_pixels));
    limits
}

fn phrase(format: &str, error: ImageError) -> String {
    let fault = match &error {
        ImageError::IoError(fault) if fault.kind() == io::ErrorKind::UnexpectedEof => {
            return format!("this {format} is truncated");
        }
        ImageError::Decoding(fault) => std::error::Error::source(fault).map_or(fault.to_string(), ToString::to_string),
        other => other.to_string(),
    };
    // The rest is about the decoder's internals.
    let fault = fault.split(" while decoding").next().unwrap_or_default();
    format!("this {format} is damaged ({fault})")
}
