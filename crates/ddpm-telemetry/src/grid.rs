//! Combines a batch of images into one picture: sample grids, and strips of the forward and reverse process.

use image::{DynamicImage, GrayImage, RgbImage};

use crate::error::DrawError;
use crate::picture::Picture;

/// Pixels between neighbouring images. There is no outer border, so a grid of one image is the image itself.
const GAP: usize = 2;
const BACKGROUND: u8 = 255;
/// Minimum size in pixels to which `Scale::Legible` enlarges the shorter side of an image.
const LEGIBLE: usize = 64;

/// The size at which each pixel of an image is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// One pixel.
    Exact,
    /// The smallest square that makes the image at least 64 pixels wide and high: images of 28 pixels are tripled, of
    /// 32 pixels doubled.
    Legible,
}

/// Arranges 8-bit `images` of shape `[n, c, h, w]` row by row in `columns` columns. Of 3 channels or more the first
/// three are shown as RGB; of 1 or 2 the first, in grey.
///
/// # Errors
/// If the shape is empty or does not match the number of bytes, or if `columns` is 0.
pub fn grid(images: &[u8], shape: [usize; 4], columns: usize, scale: Scale) -> Result<Picture, DrawError> {
    let [n, channels, height, width] = shape;
    if shape.contains(&0) || columns == 0 {
        return Err(DrawError(format!(
            "images of shape {shape:?} in {columns} columns make no picture. Give at least one image and one column."
        )));
    }
    if images.len() != n * channels * height * width {
        return Err(DrawError(format!(
            "{} bytes do not fill images of shape {shape:?}. Give one byte per channel and pixel.",
            images.len()
        )));
    }
    let zoom = match scale {
        Scale::Exact => 1,
        Scale::Legible => LEGIBLE.div_ceil(height.min(width)),
    };
    let columns = columns.min(n);
    let (cell_width, cell_height) = (width * zoom + GAP, height * zoom + GAP);
    let picture_width = columns * cell_width - GAP;
    let picture_height = n.div_ceil(columns) * cell_height - GAP;

    let shown = if channels < 3 { 1 } else { 3 };
    let mut pixels = vec![BACKGROUND; picture_height * picture_width * shown];
    for (index, image) in images.chunks_exact(channels * height * width).enumerate() {
        let (left, top) = (index % columns * cell_width, index / columns * cell_height);
        for y in 0..height * zoom {
            for x in 0..width * zoom {
                let at = ((top + y) * picture_width + left + x) * shown;
                for channel in 0..shown {
                    pixels[at + channel] = image[(channel * height + y / zoom) * width + x / zoom];
                }
            }
        }
    }
    let (width, height) = (picture_width as u32, picture_height as u32);
    let image = match shown {
        1 => GrayImage::from_raw(width, height, pixels).map(DynamicImage::from),
        _ => RgbImage::from_raw(width, height, pixels).map(DynamicImage::from),
    };
    Ok(Picture(image.expect("one byte per shown channel and pixel")))
}

/// Converts values in [-1, 1] to bytes: round((x + 1) * 127.5), with values outside the range clamped.
pub fn from_unit_floats(images: &[f32]) -> Vec<u8> {
    // The cast saturates, and maps NaN to 0.
    images.iter().map(|x| ((x + 1.0) * 127.5).round() as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_stand_where_they_belong() {
        // Five RGB images of 2x3, image i, channel c, pixel p holding 40i + 10c + p.
        let images: Vec<u8> =
            (0..5).flat_map(|i| (0..3).flat_map(move |c| (0..6).map(move |p| 40 * i + 10 * c + p))).collect();
        let picture = grid(&images, [5, 3, 2, 3], 2, Scale::Exact).unwrap();
        assert_eq!((picture.width(), picture.height(), picture.channels()), (2 * 3 + 2, 3 * 2 + 2 * 2, 3));
        let read = image::load_from_memory(&picture.encode_png()).unwrap().into_rgb8();
        for i in 0..5u8 {
            for p in 0..6u8 {
                let (x, y) = (u32::from(i % 2 * 5 + p % 3), u32::from(i / 2 * 4 + p / 3));
                assert_eq!(read[(x, y)].0, [0, 10, 20].map(|c| 40 * i + c + p), "image {i}, pixel {p}");
            }
        }
        for blank in [(3, 0), (4, 5), (0, 2), (7, 3), (5, 8), (7, 9)] {
            assert_eq!(read[blank].0, [255; 3], "at {blank:?}");
        }
    }

    #[test]
    fn small_images_are_enlarged() {
        for (side, shown) in [(8, 64), (28, 84), (32, 64), (64, 64), (256, 256)] {
            let picture = grid(&vec![7; side * side], [1, 1, side, side], 8, Scale::Legible).unwrap();
            assert_eq!((picture.width(), picture.height(), picture.channels()), (shown, shown, 1));
        }
        let picture = grid(&[1, 2, 3, 4], [2, 1, 1, 2], 1, Scale::Legible).unwrap();
        assert_eq!((picture.width(), picture.height()), (128, 2 * 64 + 2));
        let read = picture.0.to_luma8();
        assert_eq!([(63, 63), (64, 0), (63, 66), (127, 129), (0, 65)].map(|at| read[at].0[0]), [1, 2, 3, 4, 255]);
    }

    #[test]
    fn of_many_channels_the_first_ones_are_shown() {
        let shown = |channels: u8| {
            let picture =
                grid(&(0..channels).collect::<Vec<_>>(), [1, channels.into(), 1, 1], 1, Scale::Exact).unwrap();
            picture.0.into_bytes()
        };
        assert_eq!([1, 2, 3, 4, 16].map(shown), [vec![0], vec![0], vec![0, 1, 2], vec![0, 1, 2], vec![0, 1, 2]]);
    }

    #[test]
    fn floats_are_rounded_and_clamped() {
        let floats = [-1.0, -1.0 + 0.4 / 127.5, -1.0 + 0.6 / 127.5, 0.0, 1.0, 1.5, -7.0, f32::NAN];
        assert_eq!(from_unit_floats(&floats), [0, 0, 1, 128, 255, 255, 0, 0]);
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        for (bytes, shape, columns) in
            [(0, [1, 0, 2, 2], 1), (0, [0, 1, 2, 2], 1), (4, [1, 1, 2, 2], 0), (5, [1, 1, 2, 2], 1)]
        {
            assert!(grid(&vec![0; bytes], shape, columns, Scale::Exact).is_err(), "{shape:?}");
        }
    }

    #[test]
    fn saving_creates_parents() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("samples/step-000001000.png");
        grid(&[9; 4], [1, 1, 2, 2], 1, Scale::Exact).unwrap().save_png(&path).unwrap();
        assert_eq!(image::open(&path).unwrap().into_luma8().as_raw(), &[9; 4]);
    }
}
