//! From interleaved pixels to a planar image: a part of the one, scaled, drawn on a part of the other.

use std::cell::RefCell;

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};

use super::decoded::Pixels;
use super::lanczos;
use super::level::Level;
use super::place::{Placement, Rect};
use crate::ImageShape;

thread_local! {
    /// The resizer's own buffers, reused for every image.
    static RESIZER: RefCell<Resizer> = RefCell::default();
}

/// Draws a part of an image, scaled with Lanczos3 to shrink and Catmull-Rom to enlarge, on a part of a planar image of
/// the shape `image`; the rest has the level of `margin`, one for each channel. A single channel fills all planes.
/// Colours are weighted by opacity. The error is a phrase that says what is wrong.
pub(crate) fn draw<L: Level>(
    pixels: &Pixels<L>,
    placement: Placement,
    margin: &[L],
    image: ImageShape,
    out: &mut [L],
) -> Result<(), String> {
    for (out, margin) in out.chunks_exact_mut(image.pixels()).zip(margin) {
        out.fill(*margin);
    }
    let Placement { from, to } = placement;
    if pixels.channels <= 4 {
        let scaled = scaled(pixels, from, (to.width, to.height))?;
        for (c, out) in out.chunks_exact_mut(image.pixels()).enumerate() {
            copy(&scaled, (pixels.channels, c % pixels.channels), to, image.width, out);
        }
        return Ok(());
    }
    let plane = |c| pixels.values.iter().skip(c).step_by(pixels.channels).copied().collect();
    for (c, out) in out.chunks_exact_mut(image.pixels()).enumerate() {
        let plane = Pixels::new(plane(c), pixels.width, pixels.height, 1, false);
        copy(&scaled(&plane, from, (to.width, to.height))?, (1, 0), to, image.width, out);
    }
    Ok(())
}

/// The part `from` of an image at another size, interleaved. Of an image that the decoder shrank, it need not consist of
/// whole pixels.
fn scaled<L: Level>(pixels: &Pixels<L>, from: Rect, size: (u32, u32)) -> Result<Vec<L>, String> {
    let shrunk = pixels.shrunk;
    let shrinks = from.width > size.0 * shrunk || from.height > size.1 * shrunk;
    let filter = if shrinks { lanczos::filter() } else { FilterType::CatmullRom };
    let mut options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).use_alpha(pixels.alpha);
    let (width, height) = (pixels.width.div_ceil(shrunk), pixels.height.div_ceil(shrunk));
    // A view of the part, since with the option `crop` the filter reads pixels beyond the part.
    let mut part = from;
    if shrunk > 1 {
        part = Rect::whole((width, height));
        let [left, top, width, height] =
            [from.left, from.top, from.width, from.height].map(|length| f64::from(length) / f64::from(shrunk));
        options = options.crop(left, top, width, height);
    }
    let resize: Resize = match pixels.channels {
        1 => resize::<L::One>,
        2 => resize::<L::Two>,
        3 => resize::<L::Three>,
        _ => resize::<L::Four>,
    };
    let mut values = vec![L::of_byte(0); (size.0 * size.1) as usize * pixels.channels];
    let whole = (bytemuck::cast_slice(&pixels.values), (width, height));
    resize(whole, part, &options, (bytemuck::cast_slice_mut(&mut values), size))?;
    Ok(values)
}

/// [`resize`] for pixels of one kind.
type Resize = fn((&[u8], (u32, u32)), Rect, &ResizeOptions, (&mut [u8], (u32, u32))) -> Result<(), String>;

/// Scales a part of the first image to the size of the second; both are bytes, width and height. The resizer's function
/// for pixels of any kind would be compiled for 13 kinds, of which 8 occur, and once more for whole images: a minute.
fn resize<P: PixelTrait>(
    (whole, (width, height)): (&[u8], (u32, u32)),
    part: Rect,
    options: &ResizeOptions,
    (target, size): (&mut [u8], (u32, u32)),
) -> Result<(), String> {
    let whole = TypedImageRef::<P>::from_buffer(width, height, whole).map_err(|error| error.to_string())?;
    let part = TypedCroppedImage::new(whole, part.left, part.top, part.width, part.height);
    let part = part.map_err(|error| error.to_string())?;
    let mut target = TypedImage::<P>::from_buffer(size.0, size.1, target).map_err(|error| error.to_string())?;
    RESIZER
        .with_borrow_mut(|resizer| resizer.resize_typed(&part, &mut target, options).map_err(|error| error.to_string()))
}

/// Copies channel `which.1` of interleaved pixels of `which.0` channels to the part `to` of a plane.
fn copy<L: Level>(interleaved: &[L], which: (usize, usize), to: Rect, width: usize, plane: &mut [L]) {
    let (channels, channel) = which;
    let rows = interleaved.chunks_exact(to.width as usize * channels);
    for (row, out) in rows.zip(plane.chunks_exact_mut(width).skip(to.top as usize)) {
        let out = &mut out[to.left as usize..][..to.width as usize];
        for (out, pixel) in out.iter_mut().zip(row.chunks_exact(channels)) {
            *out = pixel[channel];
        }
    }
}
