//! From interleaved pixels to planar squares: cropping, scaling, padding.

use std::cell::RefCell;

use fast_image_resize::images::{CroppedImage, Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::ImageShape;

thread_local! {
    /// The resizer's own buffers and the interleaved result, reused for every image.
    static SCRATCH: RefCell<(Resizer, Vec<u8>)> = RefCell::default();
}

/// Cuts the centred square of side `crop` (by default the largest) out of interleaved pixels and scales it to `image`,
/// planar, into `out`: with Lanczos3 to shrink, Catmull-Rom to enlarge. `channels` is that of the pixels; grey pixels
/// fill all planes of an RGB image. The error is a phrase that says what is wrong.
pub(crate) fn scale(
    pixels: &[u8],
    (width, height): (u32, u32),
    channels: usize,
    crop: Option<u32>,
    image: ImageShape,
    out: &mut [u8],
) -> Result<(), String> {
    let side = crop.unwrap_or(width.min(height));
    if side > width.min(height) {
        return Err(format!("this image of {width}x{height} is smaller than data.crop = {side}"));
    }
    let filter = if side as usize > image.width { FilterType::Lanczos3 } else { FilterType::CatmullRom };
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
    let kind = if channels == 1 { PixelType::U8 } else { PixelType::U8x3 };
    let whole = ImageRef::new(width, height, pixels, kind).map_err(|error| error.to_string())?;
    // A view of the square rather than the resizer's crop option, with which the filter reads pixels beyond the square.
    let square = CroppedImage::new(&whole, (width - side) / 2, (height - side) / 2, side, side)
        .map_err(|error| error.to_string())?;
    let plane = image.pixels();
    let size = image.width as u32;
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

/// Copies the centred `window` (width, height; no larger than the result) of a grey image into the middle of a black
/// image, the same for all planes.
pub(crate) fn pad(
    pixels: &[u8],
    (width, height): (usize, usize),
    window: (usize, usize),
    image: ImageShape,
    out: &mut [u8],
) {
    let (left, top) = ((width - window.0) / 2, (height - window.1) / 2);
    let (x, y) = ((image.width - window.0) / 2, (image.width - window.1) / 2);
    out.fill(0);
    for out in out.chunks_exact_mut(image.pixels()) {
        let rows = pixels.chunks_exact(width).skip(top).take(window.1);
        for (row, out) in rows.zip(out.chunks_exact_mut(image.width).skip(y)) {
            out[x..x + window.0].copy_from_slice(&row[left..left + window.0]);
        }
    }
}
