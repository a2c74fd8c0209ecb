//! Line charts as pictures: schedules, losses, distances over steps, values over t.

use plotters::prelude::*;

use crate::axis::{Axis, extent};
use crate::canvas::{Area, FINE, HEIGHT, WIDTH, paint};
use crate::colours::COLOURS;
use crate::error::DrawError;
use crate::picture::Picture;

/// Width of each chart in a panel, in pixels.
const PANEL_WIDTH: u32 = 600;

/// A chart of lines with a common x axis.
#[derive(Clone, Debug, Default)]
pub struct Chart {
    /// Shown above the chart.
    pub title: String,
    /// Shown below the x axis.
    pub x_label: String,
    /// Shown next to the y axis.
    pub y_label: String,
    /// Whether the x axis is logarithmic; points with x <= 0 are then left out.
    pub log_x: bool,
    /// Whether the y axis is logarithmic; points with y <= 0 are then left out.
    pub log_y: bool,
    /// A range that a linear y axis always covers; ignored if the y axis is logarithmic.
    pub y_covers: Option<(f64, f64)>,
    /// The lines; two or more get a legend.
    pub series: Vec<Series>,
}

/// One line of a [`Chart`].
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its points (x, y); those that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

impl Chart {
    /// Draws the chart as a picture of 900x500 pixels.
    ///
    /// # Errors
    /// If the labels leave no room for the lines.
    pub fn draw(&self) -> Result<Picture, DrawError> {
        draw(std::slice::from_ref(self), WIDTH)
    }
}

/// Draws several charts side by side, each of 600x500 pixels.
///
/// # Errors
/// If there is no chart, or its labels leave no room for the lines.
pub fn panel(charts: &[Chart]) -> Result<Picture, DrawError> {
    draw(charts, PANEL_WIDTH)
}

/// Draws the terms of the variational bound, or any other loss, over t as one line with a logarithmic y axis.
/// `values` holds one entry per timestep, `None` for a timestep without a value yet.
///
/// # Errors
/// The chart cannot be drawn; this does not happen with these fixed labels.
pub fn loss_by_timestep(values: &[Option<f64>]) -> Result<Picture, DrawError> {
    let points = values.iter().enumerate().filter_map(|(t, value)| Some((t as f64, (*value)?)));
    let chart = Chart {
        title: "Terms of the bound".into(),
        x_label: "t".into(),
        y_label: "bits/dim".into(),
        log_y: true,
        series: vec![Series { name: "term".into(), points: points.collect() }],
        ..Chart::default()
    };
    chart.draw()
}

fn draw(charts: &[Chart], chart_width: u32) -> Result<Picture, DrawError> {
    if charts.is_empty() {
        return Err(DrawError("a panel of no charts cannot be drawn. Give at least one.".into()));
    }
    let titles: Vec<&str> = charts.iter().map(|chart| chart.title.as_str()).collect();
    paint(chart_width * charts.len() as u32, HEIGHT, &titles.join(", "), |root| {
        charts.iter().zip(root.split_evenly((1, charts.len()))).try_for_each(|(chart, area)| draw_one(chart, &area))
    })
}

fn draw_one(chart: &Chart, area: &Area<'_>) -> Result<(), Box<dyn std::error::Error>> {
    let lines: Vec<Vec<(f64, f64)>> = chart.series.iter().map(|series| chart.drawn(series)).collect();
    let all = || lines.iter().flatten();
    let x_extent = extent(all().map(|point| point.0));
    let x = if chart.log_x { Axis::logarithmic(x_extent) } else { Axis::linear(x_extent) };
    let covered = chart.y_covers.filter(|_| !chart.log_y).map(|(low, high)| [low, high]);
    let (low, high) = extent(all().map(|point| point.1).chain(covered.into_iter().flatten()));
    let margin = 0.04 * (high - low);
    let y_extent = (low - margin, high + margin);
    let y = if chart.log_y { Axis::logarithmic(y_extent) } else { Axis::linear(y_extent) };

    let mut canvas = ChartBuilder::on(area)
        .caption(&chart.title, ("sans-serif", 24 * FINE))
        .margin(14 * FINE)
        .margin_right(24 * FINE)
        .x_label_area_size(48 * FINE)
        .y_label_area_size(76 * FINE)
        .build_cartesian_2d(x, y)?;
    canvas
        .configure_mesh()
        .x_desc(&chart.x_label)
        .y_desc(&chart.y_label)
        .label_style(("sans-serif", 15 * FINE))
        .axis_desc_style(("sans-serif", 17 * FINE))
        .bold_line_style(RGBColor(225, 225, 225).stroke_width(FINE))
        .axis_style(RGBColor(120, 120, 120).stroke_width(FINE))
        .set_all_tick_mark_size(5 * FINE)
        .draw()?;
    for ((series, line), &colour) in chart.series.iter().zip(&lines).zip(COLOURS.iter().cycle()) {
        let style = colour.stroke_width(2 * FINE);
        canvas
            .draw_series(LineSeries::new(line.iter().copied(), style))?
            .label(&series.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22 * FINE as i32, y)], style));
    }
    if chart.series.len() > 1 {
        canvas
            .configure_series_labels()
            .position(free_corner(all(), x_extent, y_extent))
            .margin(10 * FINE)
            .legend_area_size(30 * FINE)
            .label_font(("sans-serif", 15 * FINE))
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(190, 190, 190).stroke_width(FINE))
            .draw()?;
    }
    Ok(())
}

/// Of the four corners, the one in which the legend covers the fewest points.
fn free_corner<'a>(
    points: impl Iterator<Item = &'a (f64, f64)> + Clone,
    (left, right): (f64, f64),
    (low, high): (f64, f64),
) -> SeriesLabelPosition {
    use SeriesLabelPosition::{LowerLeft, LowerRight, UpperLeft, UpperRight};
    let place = |(x, y): &(f64, f64)| ((x - left) / (right - left), (y - low) / (high - low));
    let behind = |corner: &SeriesLabelPosition| {
        let covers = |(x, y): (f64, f64)| match corner {
            UpperRight => x > 0.55 && y > 0.75,
            UpperLeft => x < 0.45 && y > 0.75,
            LowerRight => x > 0.55 && y < 0.25,
            _ => x < 0.45 && y < 0.25,
        };
        points.clone().filter(|point| covers(place(point))).count()
    };
    [UpperRight, UpperLeft, LowerRight, LowerLeft].into_iter().min_by_key(behind).unwrap_or(UpperRight)
}

impl Chart {
    /// The points that can be shown, with x and y converted to logarithms for logarithmic axes.
    fn drawn(&self, series: &Series) -> Vec<(f64, f64)> {
        let on = |logarithmic: bool, value: f64| if logarithmic { value.log10() } else { value };
        let shown = |&(x, y): &(f64, f64)| (on(self.log_x, x), on(self.log_y, y));
        series.points.iter().map(shown).filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(name: &str, y: impl Fn(f64) -> f64) -> Series {
        Series { name: name.into(), points: (0..1000).map(|t| (f64::from(t), y(f64::from(t)))).collect() }
    }

    #[test]
    fn a_chart_is_a_png_of_its_size_with_every_line_on_it() {
        let chart = Chart {
            title: "Schedule".into(),
            x_label: "t".into(),
            y_label: "ᾱₜ".into(),
            series: vec![curve("linear", |t| t), curve("square", |t| t * t / 1000.0)],
            ..Default::default()
        };
        for (picture, width) in [(chart.draw().unwrap(), 900), (panel(&vec![chart.clone(); 3]).unwrap(), 1800)] {
            let read = image::load_from_memory(&picture.encode_png()).unwrap().into_rgb8();
            assert_eq!(read.dimensions(), (width, 500));
            for RGBColor(r, g, b) in &COLOURS[..2] {
                let near = |pixel: &&image::Rgb<u8>| pixel.0.iter().zip([r, g, b]).all(|(a, b)| a.abs_diff(*b) < 40);
                let painted = read.pixels().filter(near).count();
                assert!(painted > 300, "{painted} pixels of ({r}, {g}, {b})");
            }
        }
    }

    #[test]
    fn odd_data_draw_an_empty_or_flat_chart() {
        for points in [vec![], vec![(1.0, 0.0)], vec![(0.0, 3.0), (1.0, 3.0)], vec![(f64::NAN, 1.0), (0.0, -1.0)]] {
            for log_y in [false, true] {
                let chart = Chart {
                    log_y,
                    series: vec![Series { points: points.clone(), ..Default::default() }],
                    ..Default::default()
                };
                assert_eq!(chart.draw().unwrap().width(), 900, "{points:?}");
            }
        }
        assert!(panel(&[]).is_err());
    }

    #[test]
    fn a_loss_over_t_shows_the_timesteps_that_have_one() {
        let painted = |values: &[Option<f64>]| {
            let read = image::load_from_memory(&loss_by_timestep(values).unwrap().encode_png()).unwrap().into_rgb8();
            let RGBColor(r, g, b) = COLOURS[0];
            let near = |pixel: &&image::Rgb<u8>| pixel.0.iter().zip([r, g, b]).all(|(a, b)| a.abs_diff(b) < 40);
            read.pixels().filter(near).count()
        };
        let falling: Vec<Option<f64>> = (0..1000).map(|t| (t % 7 > 0).then(|| 1.0 / f64::from(t + 1))).collect();
        assert!(painted(&falling) > 300);
        assert_eq!(painted(&[None; 1000]), 0);
    }
}
