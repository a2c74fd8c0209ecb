//! JPEG files, decoded by libjpeg-turbo: the pixels equal Pillow's bit for bit.
//!
//! A damaged file is an error here. The format has no checksum, so the only criterion is that the data decode
//! consistently: the codes are in the tables, each scan ends with its last block, restart markers are in order.
//! Otherwise libjpeg warns and continues with whatever it can decode, mostly grey; here its warnings are errors. Some
//! warnings are about irregularities that do not affect any pixel: [`segments::tidy`] removes these, and the file is
//! decoded again.

use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, RgbImage};
use turbojpeg::{Colorspace, Decompressor, Image, PixelFormat, ScalingFactor};

use super::decoded::Decoded;
use super::limits::check_size;
use super::{colour, segments};

/// Maximum number of scans of a progressive file. Encoders write about ten; thousands of empty ones would keep the
/// decoder busy for hours.
const MAX_SCANS: u32 = 500;

/// libjpeg's message for a file that ends before the end-of-image marker.
const ENDS_EARLY: &str = "Premature end of JPEG file";

/// The prefix of its warnings about damaged data.
const DAMAGE: &str = "Corrupt JPEG data: ";

enum Refusal {
    TooLarge(String),
    /// The decoder's warning or error.
    Decoder(String),
}

/// Decodes a JPEG, upright; at one part in `shrink(width, height)` of its size, 1, 2, 4 or 8, which leaves out its finest
/// details before they are computed.
pub(super) fn decode(bytes: &[u8], max_pixels: u64, shrink: impl Fn(u32, u32) -> u32) -> Result<Decoded, String> {
    let mut fault = match decompress(bytes, max_pixels, &shrink) {
        Err(Refusal::Decoder(fault)) => fault,
        other => return finish(other),
    };
    for zeros in [usize::MAX, 0, 1] {
        match decompress(&segments::tidy(bytes, zeros), max_pixels, &shrink) {
            // A truncated file that was completed with an end marker only looks damaged.
            Err(Refusal::Decoder(next)) if fault != ENDS_EARLY && zeros == usize::MAX => fault = next,
            Err(Refusal::Decoder(_)) => {}
            other => return finish(other),
        }
    }
    finish(Err(Refusal::Decoder(fault)))
}

fn finish(result: Result<Decoded, Refusal>) -> Result<Decoded, String> {
    result.map_err(|refusal| match refusal {
        Refusal::TooLarge(reason) => reason,
        Refusal::Decoder(message) => match message.strip_prefix(DAMAGE) {
            Some(fault) => format!("this JPEG is damaged ({fault})"),
            None if message == ENDS_EARLY => "this JPEG is truncated".into(),
            None => format!("this JPEG is damaged, or of an unsupported kind ({message})"),
        },
    })
}

/// Decodes a JPEG without any tolerance.
fn decompress(bytes: &[u8], max_pixels: u64, shrink: impl Fn(u32, u32) -> u32) -> Result<Decoded, Refusal> {
    let mut decompressor = Decompressor::new().map_err(message)?;
    decompressor.set_scan_limit(MAX_SCANS).map_err(message)?;
    let header = decompressor.read_header(bytes).map_err(message)?;
    let (width, height) = (header.width as u32, header.height as u32);
    check_size(width, height, max_pixels).map_err(Refusal::TooLarge)?;
    let format = match header.colorspace {
        Colorspace::Gray => PixelFormat::GRAY,
        Colorspace::CMYK | Colorspace::YCCK => PixelFormat::CMYK,
        Colorspace::RGB | Colorspace::YCbCr => PixelFormat::RGB,
    };
    let orientation = segments::orientation(bytes);
    let (upright_width, upright_height) = if is_sideways(orientation) { (height, width) } else { (width, height) };
    let shrunk = if header.is_lossless { 1 } else { shrink(upright_width, upright_height) };
    decompressor.set_scaling_factor(ScalingFactor::new(1, shrunk as usize)).map_err(message)?;
    let scaled = header.scaled(decompressor.scaling_factor());
    let pitch = scaled.width * format.size();
    let mut pixels = vec![0; pitch * scaled.height];
    let image = Image { pixels: &mut pixels[..], width: scaled.width, pitch, height: scaled.height, format };
    decompressor.decompress(bytes, image).map_err(message)?;
    let (width, height) = (scaled.width as u32, scaled.height as u32);
    let image = match format {
        PixelFormat::GRAY => GrayImage::from_raw(width, height, pixels).map(DynamicImage::from),
        PixelFormat::CMYK => RgbImage::from_raw(width, height, colour::rgb_from_cmyk(&pixels)).map(DynamicImage::from),
        _ => RgbImage::from_raw(width, height, pixels).map(DynamicImage::from),
    };
    let mut image = image.expect("there are width x height pixels");
    image.apply_orientation(orientation);
    Ok(Decoded { width: upright_width, height: upright_height, shrunk, ..image.into() })
}

/// Whether the rows of an image are stored as columns.
fn is_sideways(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH)
}

fn message(error: turbojpeg::Error) -> Refusal {
    Refusal::Decoder(match error {
        turbojpeg::Error::TurboJpegError(message) => message,
        // The file ends within the header, so there is no width.
        turbojpeg::Error::IntegerOverflow(_) => ENDS_EARLY.into(),
        other => other.to_string(),
    })
}
