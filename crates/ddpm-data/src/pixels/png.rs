//! PNG files.

use std::io::Cursor;

use ddpm_spec::ImageShape;
use image::codecs::png::{PngDecoder, PngEncoder};
use image::{DynamicImage, ExtendedColorType, ImageEncoder, ImageError};

use super::coded;

/// The end of a PNG: an empty chunk and its checksum.
const IEND: &[u8] = b"\0\0\0\0IEND\xae\x42\x60\x82";

/// Decodes a PNG, upright. A wrong checksum is an error, and so is a truncated image. The end chunk may be missing: the
/// pixels can be complete without it.
pub(super) fn decode(bytes: &[u8], max_pixels: u64) -> Result<DynamicImage, String> {
    decode_ended(bytes, max_pixels)
        .or_else(|reason| decode_ended(&[bytes, IEND].concat(), max_pixels).map_err(|_| reason))
}

fn decode_ended(bytes: &[u8], max_pixels: u64) -> Result<DynamicImage, String> {
    coded::decode("PNG", PngDecoder::with_limits(Cursor::new(bytes), coded::limits(max_pixels)), max_pixels)
}

/// A PNG of planar bytes of one channel or three.
pub(super) fn encode(planar: &[u8], image: ImageShape) -> Result<Vec<u8>, ImageError> {
    let plane = image.pixels();
    let interleaved: Vec<u8> =
        (0..plane).flat_map(|pixel| (0..image.channels).map(move |c| planar[c * plane + pixel])).collect();
    let colour = if image.channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
    let mut file = Vec::new();
    PngEncoder::new(&mut file).write_image(&interleaved, image.width as u32, image.height as u32, colour)?;
    Ok(file)
}
