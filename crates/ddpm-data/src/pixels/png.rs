//! PNG files.

use std::error::Error;
use std::io::{self, Cursor};

use image::codecs::png::PngDecoder;
use image::{DynamicImage, ImageDecoder, ImageError, Limits};

use super::limits::{OVERHEAD, check_size};

/// The end of a PNG: an empty chunk and its checksum.
const IEND: &[u8] = b"\0\0\0\0IEND\xae\x42\x60\x82";

/// Decodes a PNG, upright. A wrong checksum is an error, and so is a truncated image. The end chunk may be missing: the
/// pixels can be complete without it.
pub(super) fn decode(bytes: &[u8], max_pixels: u64) -> Result<DynamicImage, String> {
    decode_ended(bytes, max_pixels)
        .or_else(|reason| decode_ended(&[bytes, IEND].concat(), max_pixels).map_err(|_| reason))
}

fn decode_ended(bytes: &[u8], max_pixels: u64) -> Result<DynamicImage, String> {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(max_pixels.saturating_mul(8).saturating_add(OVERHEAD));
    let mut decoder = PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(phrase)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height, max_pixels)?;
    let orientation = decoder.orientation().map_err(phrase)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(phrase)?;
    image.apply_orientation(orientation);
    Ok(image)
}

fn phrase(error: ImageError) -> String {
    let fault = match &error {
        ImageError::IoError(fault) if fault.kind() == io::ErrorKind::UnexpectedEof => {
            return "this PNG is truncated".into();
        }
        ImageError::Decoding(fault) => fault.source().unwrap_or(fault).to_string(),
        other => other.to_string(),
    };
    // The rest is about the decoder's internals.
    let fault = fault.split(" while decoding").next().unwrap_or_default();
    format!("this PNG is damaged ({fault})")
}
