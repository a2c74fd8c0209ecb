//! JPEG files, decoded by libjpeg-turbo: the pixels equal Pillow's bit for bit.
//!
//! A damaged file is an error here. The format has no checksum, so the only criterion is that the data decode
//! consistently: the codes are in the tables, each scan ends with its last block, restart markers are in order.
//! Otherwise libjpeg warns and continues with whatever it can decode, mostly grey; here its warnings are errors. Some
//! warnings are about irregularities that do not affect any pixel: [`segments::tidy`] removes these, and the file is
//! decoded again.

use image::{DynamicImage, GrayImage, RgbImage};
use turbojpeg::{Colorspace, Decompressor, Image, PixelFormat};

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

/// Decodes a JPEG, upright.
pub(super) fn decode(bytes: &[u8], max_pixels: u64) -> Result<DynamicImage, String> {
    let mut fault = match decompress(bytes, max_pixels) {
        Err(Refusal::Decoder(fault)) => fault,
        other => return finish(other, bytes),
    };
    for zeros in [usize::MAX, 0, 1] {
        match decompress(&segments::tidy(bytes, zeros), max_pixels) {
            // A truncated file that was completed with an end marker only looks damaged.
            Err(Refusal::Decoder(next)) if fault != ENDS_EARLY && zeros == usize::MAX => fault = next,
            Err(Refusal::Decoder(_)) => {}
            other => return finish(other, bytes),
        }
    }
    finish(Err(Refusal::Decoder(fault)), bytes)
}

fn finish(result: Result<DynamicImage, Refusal>, bytes: &[u8]) -> Result<DynamicImage, String> {
    match result {
        Ok(mut image) => {
            image.apply_orientation(segments::orientation(bytes));
            Ok(image)
        }
        Err(Refusal::TooLarge(reason)) => Err(reason),
        Err(Refusal::Decoder(message)) => Err(match message.strip_prefix(DAMAGE) {
            Some(fault) => format!("this JPEG is damaged ({fault})"),
            None if message == ENDS_EARLY => "this JPEG is truncated".into(),
            None => format!("this JPEG is damaged, or of an unsupported kind ({message})"),
        }),
    }
}

/// Decodes a JPEG as stored (not rotated), without any tolerance.
fn decompress(bytes: &[u8], max_pixels: u64) -> Result<DynamicImage, Refusal> {
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
    let pitch = header.width * format.size();
    let mut pixels = vec![0; pitch * header.height];
    let image = Image { pixels: &mut pixels[..], width: header.width, pitch, height: header.height, format };
    decompressor.decompress(bytes, image).map_err(message)?;
    let image = match format {
        PixelFormat::GRAY => GrayImage::from_raw(width, height, pixels).map(DynamicImage::from),
        PixelFormat::CMYK => RgbImage::from_raw(width, height, colour::rgb_from_cmyk(&pixels)).map(DynamicImage::from),
        _ => RgbImage::from_raw(width, height, pixels).map(DynamicImage::from),
    };
    Ok(image.expect("there are width x height pixels"))
}

fn message(error: turbojpeg::Error) -> Refusal {
    Refusal::Decoder(match error {
        turbojpeg::Error::TurboJpegError(message) => message,
        // The file ends within the header, so there is no width.
        turbojpeg::Error::IntegerOverflow(_) => ENDS_EARLY.into(),
        other => other.to_string(),
    })
}
