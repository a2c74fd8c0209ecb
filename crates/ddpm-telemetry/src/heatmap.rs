//! Heat maps: values over two integer axes, shown as colours.

use std::error::Error;

use plotters::prelude::*;

use crate::axis::Axis;
use crate::canvas::{Area, FINE, HEIGHT, WIDTH, paint};
use crate::colours::COLOURS;
use crate::error::DrawError;
use crate::picture::Picture;

/// Width of the colour scale next to the map, including its labels, in pixels.
const SCALE_WIDTH: u32 = 110;
/// Number of colours in the scale.
const SCALE_STEPS: usize = 128;

/// Values in [-1, 1] over columns and rows.
#[derive(Clone, Debug, Default)]
pub struct HeatMap {
    /// Shown above the map.
    pub title: String,
    /// Shown below the x axis, which counts columns from 0.
    pub x_label: String,
    /// Shown next to the y axis, which counts rows from 0, upwards.
    pub y_label: String,
    /// The values by row; all rows have the same length.
    pub rows: Vec<Vec<f32>>,
}

impl HeatMap {
    /// Draws the map and its colour scale as a picture of 900x500 pixels.
    ///
    /// # Errors
    /// If there is no value, rows differ in length, or the labels leave no room.
    pub fn draw(&self) -> Result<Picture, DrawError> {
        let columns = self.rows.first().map_or(0, Vec::len);
        if !(columns > 0 && self.rows.iter().all(|row| row.len() == columns)) {
            return Err(DrawError(
                "a heat map needs rows of equal, non-zero length. Give at least one value, and as many in each row."
                    .into(),
            ));
        }
        paint(WIDTH, HEIGHT, &self.title, |root| {
            let (map, scale) = root.split_horizontally((WIDTH - SCALE_WIDTH) * FINE);
            self.draw_map(&map, columns)?;
            draw_scale(&scale)
        })
    }

    fn draw_map(&self, area: &Area<'_>, columns: usize) -> Result<(), Box<dyn Error>> {
        let range = |cells: usize| Axis::linear((0.0, cells as f64));
        let mut canvas = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 24 * FINE))
            .margin(14 * FINE)
            .x_label_area_size(48 * FINE)
            .y_label_area_size(60 * FINE)
            .build_cartesian_2d(range(columns), range(self.rows.len()))?;
        canvas
            .configure_mesh()
            .disable_mesh()
            .x_desc(&self.x_label)
            .y_desc(&self.y_label)
            .label_style(("sans-serif", 15 * FINE))
            .axis_desc_style(("sans-serif", 17 * FINE))
            .axis_style(RGBColor(120, 120, 120).stroke_width(FINE))
            .set_all_tick_mark_size(5 * FINE)
            .draw()?;
        let cells = self.rows.iter().enumerate().flat_map(|(y, row)| {
            row.iter().enumerate().map(move |(x, value)| cell(x as f64, y as f64, 1.0, 1.0, f64::from(*value)))
        });
        canvas.draw_series(cells)?;
        Ok(())
    }
}

/// Draws the colour scale from -1 to 1.
fn draw_scale(area: &Area<'_>) -> Result<(), Box<dyn Error>> {
    // As high as the map, so leave room for a caption above and for x-axis labels below.
    let mut canvas = ChartBuilder::on(area)
        .caption(" ", ("sans-serif", 24 * FINE))
        .margin(14 * FINE)
        .x_label_area_size(48 * FINE)
        .y_label_area_size(50 * FINE)
        .build_cartesian_2d(0.0..1.0, Axis::linear((-1.0, 1.0)))?;
    canvas
        .configure_mesh()
        .disable_mesh()
        .disable_x_axis()
        .label_style(("sans-serif", 15 * FINE))
        .axis_style(RGBColor(120, 120, 120).stroke_width(FINE))
        .set_all_tick_mark_size(5 * FINE)
        .draw()?;
    let height = 2.0 / SCALE_STEPS as f64;
    canvas.draw_series((0..SCALE_STEPS).map(|step| {
        let y = -1.0 + step as f64 * height;
        cell(0.0, y, 1.0, height, y + height / 2.0)
    }))?;
    Ok(())
}

fn cell(x: f64, y: f64, width: f64, height: f64, value: f64) -> Rectangle<(f64, f64)> {
    Rectangle::new([(x, y), (x + width, y + height)], colour(value).filled())
}

/// Blue at -1, white at 0, vermilion at 1.
fn colour(value: f64) -> RGBColor {
    let end = if value < 0.0 { COLOURS[0] } else { COLOURS[1] };
    let share = value.abs().min(1.0);
    let mix = |channel: u8| (255.0 + share * (f64::from(channel) - 255.0)).round() as u8;
    RGBColor(mix(end.0), mix(end.1), mix(end.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_colours_and_places() {
        assert_eq!([-1.0, 0.0, 1.0].map(colour), [COLOURS[0], RGBColor(255, 255, 255), COLOURS[1]]);
        let map = HeatMap { rows: vec![vec![-1.0, 1.0], vec![1.0, -1.0]], ..HeatMap::default() };
        let picture = map.draw().unwrap();
        assert_eq!((picture.width(), picture.height()), (900, 500));
        let read = image::load_from_memory(&picture.encode_png()).unwrap().into_rgb8();
        let [low, high] = [COLOURS[0], COLOURS[1]].map(|RGBColor(r, g, b)| [r, g, b]);
        // Rows count upwards.
        for (at, expected) in [((250, 350), low), ((600, 350), high), ((250, 120), high), ((600, 120), low)] {
            assert_eq!(read[at].0, expected, "at {at:?}");
        }
    }

    #[test]
    fn ragged_or_empty_rows_are_refused() {
        for rows in [vec![], vec![vec![]], vec![vec![0.0], vec![0.0, 1.0]]] {
            assert!(HeatMap { rows, ..HeatMap::default() }.draw().is_err());
        }
    }
}
