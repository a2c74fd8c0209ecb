//! The surface on which charts are drawn: the font, and antialiasing of lines and letters.

use std::error::Error;
use std::sync::Once;

use image::imageops::thumbnail;
use image::{DynamicImage, RgbImage};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;

use crate::error::DrawError;
use crate::picture::Picture;

/// Width of a single chart in pixels.
pub(crate) const WIDTH: u32 = 900;
/// Height of any chart in pixels.
pub(crate) const HEIGHT: u32 = 500;
/// Charts are drawn larger by this factor and then scaled down, which smooths lines and letters.
pub(crate) const FINE: u32 = 3;

/// The drawing area, `FINE` times as large as the picture.
pub(crate) type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// Draws a picture of this size with `draw`, on a white background; `title` names it in an error.
pub(crate) fn paint(
    width: u32,
    height: u32,
    title: &str,
    draw: impl FnOnce(&Area<'_>) -> Result<(), Box<dyn Error>>,
) -> Result<Picture, DrawError> {
    static FONT: Once = Once::new();
    FONT.call_once(|| {
        let font = include_bytes!("../assets/DejaVuSans-subset.ttf");
        // If the font does not parse, drawing the first label below fails.
        let _ = register_font("sans-serif", FontStyle::Normal, font);
    });
    let (fine_width, fine_height) = (width * FINE, height * FINE);
    let mut pixels = vec![255; (fine_width * fine_height * 3) as usize];
    {
        let root = BitMapBackend::with_buffer(&mut pixels, (fine_width, fine_height)).into_drawing_area();
        draw(&root)
            .map_err(|error| DrawError(format!("the chart {title:?} cannot be drawn: {error}. Shorten its labels.")))?;
    }
    let image = RgbImage::from_raw(fine_width, fine_height, pixels).expect("three bytes per pixel");
    Ok(Picture(DynamicImage::from(thumbnail(&image, width, height))))
}
