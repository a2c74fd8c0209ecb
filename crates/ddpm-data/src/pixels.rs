//! From decoded pixels to planar squares: cropping, scaling, padding, alpha and grey.

use std::cell::RefCell;
use std::io::Cursor;

use fast_image_resize::images::{CroppedImage, Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use crate::ImageSpec;

/// Longest side of an image that is decoded at all.
pub(crate) const MAX_SIDE: u32 = 16384;
/// Most bytes that one image may take once decoded.
pub(crate) const MAX_BYTES: u64 = 256 << 20;

thread_local! {
    /// The resizer's own buffers and the interleaved result, kept from image to image.
    static SCRATCH: RefCell<(Resizer, Vec<u8>)> = RefCell::default();
}

/// Decodes a JPEG or PNG by its content, upright (EXIF orientation applied), as interleaved grey or RGB of `channels`.
/// What is transparent is laid over black. The error is a phrase on what is wrong.
pub(crate) fn decode(bytes: &[u8], channels: usize) -> Result<(Vec<u8>, u32, u32), String> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| error.to_string())?;
    let Some(format @ (ImageFormat::Jpeg | ImageFormat::Png)) = reader.format() else {
        return Err("this is neither a JPEG nor a PNG image".into());
    };
    if format == ImageFormat::Jpeg && !jpeg_is_whole(bytes) {
        return Err("this JPEG is truncated".into());
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(phrase)?;
    if decoder.total_bytes() > MAX_BYTES {
        return Err(too_large());
    }
    let orientation = decoder.orientation().map_err(phrase)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(phrase)?;
    image.apply_orientation(orientation);
    let (width, height) = (image.width(), image.height());
    let pixels = match (channels, image.color().has_alpha()) {
        (1, false) => image.into_luma8().into_raw(),
        (1, true) => over_black::<2>(image.into_luma_alpha8().into_raw()),
        (_, false) => image.into_rgb8().into_raw(),
        (_, true) => over_black::<4>(image.into_rgba8().into_raw()),
    };
    Ok((pixels, width, height))
}

/// Cuts the centred square of side `crop` (by default the largest) out of interleaved pixels and scales it to `spec`,
/// planar, into `out`: Lanczos3 where it shrinks, Catmull-Rom where it grows. `channels` is that of the pixels; grey
/// pixels fill all planes of an RGB image. The error is a phrase on what is wrong.
pub(crate) fn scale(
    pixels: &[u8],
    (width, height): (u32, u32),
    channels: usize,
    crop: Option<u32>,
    spec: ImageSpec,
    out: &mut [u8],
) -> Result<(), String> {
    let side = crop.unwrap_or(width.min(height));
    if side > width.min(height) {
        return Err(format!("this image of {width}x{height} is smaller than data.crop = {side}"));
    }
    let filter = if side as usize > spec.size { FilterType::Lanczos3 } else { FilterType::CatmullRom };
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
    let kind = if channels == 1 { PixelType::U8 } else { PixelType::U8x3 };
    let whole = ImageRef::new(width, height, pixels, kind).map_err(|error| error.to_string())?;
    // A view of the square, not the resizer's crop option: with that, the filter reads pixels beyond the square.
    let square = CroppedImage::new(&whole, (width - side) / 2, (height - side) / 2, side, side)
        .map_err(|error| error.to_string())?;
    let plane = spec.size * spec.size;
    let size = spec.size as u32;
    SCRATCH.with_borrow_mut(|(resizer, interleaved)| {
        interleaved.resize(plane * channels, 0);
        let mut target = Image::from_slice_u8(size, size, interleaved, kind).map_err(|error| error.to_string())?;
        resizer.resize(&square, &mut target, &options).map_err(|error| error.to_string())?;
        for (c, out) in out.chunks_exact_mut(plane).enumerate() {
            for (out, pixel) in out.iter_mut().zip(interleaved.chunks_exact(channels)) {
                *out = pixel[c % channels];
            }
        }
        Ok(())
    })
}

/// Copies the centred `window` (width, height; no larger than the result) of a grey image into the middle of zeros,
/// all planes alike.
pub(crate) fn pad(
    pixels: &[u8],
    (width, height): (usize, usize),
    window: (usize, usize),
    spec: ImageSpec,
    out: &mut [u8],
) {
    let (left, top) = ((width - window.0) / 2, (height - window.1) / 2);
    let (x, y) = ((spec.size - window.0) / 2, (spec.size - window.1) / 2);
    out.fill(0);
    for out in out.chunks_exact_mut(spec.size * spec.size) {
        let rows = pixels.chunks_exact(width).skip(top).take(window.1);
        for (row, out) in rows.zip(out.chunks_exact_mut(spec.size).skip(y)) {
            out[x..x + window.0].copy_from_slice(&row[left..left + window.0]);
        }
    }
}

/// Whether an end-of-image marker follows the last start-of-scan marker. The decoder fills what is missing with grey
/// and says nothing; entropy-coded data never holds either marker, and thumbnails come before the scan.
fn jpeg_is_whole(bytes: &[u8]) -> bool {
    let last = |marker: [u8; 2]| bytes.windows(2).rposition(|pair| pair == marker);
    last([0xff, 0xd9]) > last([0xff, 0xda])
}

/// Composites pixels of `N` components, the last of them alpha, over black and drops the alpha.
fn over_black<const N: usize>(pixels: Vec<u8>) -> Vec<u8> {
    let (pixels, _) = pixels.as_chunks::<N>();
    pixels
        .iter()
        .flat_map(|pixel| {
            let alpha = u32::from(pixel[N - 1]);
            pixel[..N - 1].iter().map(move |&value| ((u32::from(value) * alpha + 127) / 255) as u8)
        })
        .collect()
}

fn phrase(error: ImageError) -> String {
    match error {
        ImageError::Limits(_) => too_large(),
        other => format!("this image cannot be decoded ({other})"),
    }
}

fn too_large() -> String {
    format!("this image is larger than {MAX_SIDE} pixels a side or {} MiB decoded", MAX_BYTES >> 20)
}
