//! The surface that charts are drawn on: the font, and smooth lines and letters.

use std::error::Error;
use std::sync::Once;

use image::imageops::thumbnail;
use image::{DynamicImage, RgbImage};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;

use crate::error::DrawError;
use crate::picture::Picture;

/// Of a chart that stands alone, in pixels.
pub(crate) const WIDTH: u32 = 900;
/// Of any chart, in pixels.
pub(crate) const HEIGHT: u32 = 500;
/// Charts are drawn larger by this factor and then reduced, which smooths their lines and letters.
pub(crate) const FINE: u32 = 3;

/// What is drawn on, `FINE` times as large as the picture.
pub(crate) type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// A white picture of this size with what `draw` puts on it; `title` names it in an error.
pub(crate) fn paint(
    width: u32,
    height: u32,
    title: &str,
    draw: impl FnOnce(&Area<'_>) -> Result<(), Box<dyn Error>>,
) -> Result<Picture, DrawError> {
    static FONT: Once = Once::new();
    FONT.call_once(|| {
        let font = include_bytes!("../assets/DejaVuSans-subset.ttf");
        // A font that does not parse shows below, as an error of the first label.
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
