//! Line charts as pictures: schedules, losses, distances over steps.

use std::sync::Once;

use anyhow::{Result, anyhow, ensure};
use image::imageops::thumbnail;
use image::{DynamicImage, RgbImage};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;

use super::Picture;
use super::axis::{Axis, extent};

const WIDTH: u32 = 900;
const HEIGHT: u32 = 500;
/// Of each chart in a panel of several.
const PANEL_WIDTH: u32 = 600;
/// Charts are drawn larger by this factor and then reduced, which smooths their lines and letters.
const FINE: u32 = 3;

/// Told apart by people of any colour vision (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// A chart of lines over a common x axis.
#[derive(Clone, Debug, Default)]
pub struct Chart {
    /// Stands above the chart.
    pub title: String,
    /// Stands below the x axis.
    pub x_label: String,
    /// Stands beside the y axis.
    pub y_label: String,
    /// Whether y is shown by its logarithm; values of 0 and below are then left out.
    pub log_y: bool,
    /// The lines; a legend tells two or more apart.
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
    /// The chart as a picture of 900x500.
    ///
    /// # Errors
    /// If the labels leave no room for the lines.
    pub fn draw(&self) -> Result<Picture> {
        draw(std::slice::from_ref(self), WIDTH)
    }
}

/// Several charts side by side, each of 600x500.
///
/// # Errors
/// If there is no chart, or its labels leave no room for the lines.
pub fn panel(charts: &[Chart]) -> Result<Picture> {
    draw(charts, PANEL_WIDTH)
}

fn draw(charts: &[Chart], chart_width: u32) -> Result<Picture> {
    static FONT: Once = Once::new();
    FONT.call_once(|| {
        let font = include_bytes!("../../assets/DejaVuSans-subset.ttf");
        // A font that does not parse shows below, as an error of the first label.
        let _ = register_font("sans-serif", FontStyle::Normal, font);
    });
    ensure!(!charts.is_empty(), "a panel of no charts cannot be drawn. Give at least one.");
    let width = chart_width * charts.len() as u32;
    let (fine_width, fine_height) = (width * FINE, HEIGHT * FINE);
    let mut pixels = vec![255; (fine_width * fine_height * 3) as usize];
    {
        let root = BitMapBackend::with_buffer(&mut pixels, (fine_width, fine_height)).into_drawing_area();
        for (chart, area) in charts.iter().zip(root.split_evenly((1, charts.len()))) {
            draw_one(chart, &area).map_err(|error| {
                anyhow!("the chart {:?} cannot be drawn: {error}. Shorten its labels.", chart.title)
            })?;
        }
    }
    let image = RgbImage::from_raw(fine_width, fine_height, pixels).expect("three bytes per pixel");
    Ok(Picture(DynamicImage::from(thumbnail(&image, width, HEIGHT))))
}

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

fn draw_one(chart: &Chart, area: &Area<'_>) -> Result<(), Box<dyn std::error::Error>> {
    let lines: Vec<Vec<(f64, f64)>> = chart.series.iter().map(|series| chart.drawn(series)).collect();
    let all = || lines.iter().flatten();
    let x = Axis::linear(extent(all().map(|point| point.0)));
    let (low, high) = extent(all().map(|point| point.1));
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
            .position(SeriesLabelPosition::UpperRight)
            .margin(10 * FINE)
            .legend_area_size(30 * FINE)
            .label_font(("sans-serif", 15 * FINE))
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(190, 190, 190).stroke_width(FINE))
            .draw()?;
    }
    Ok(())
}

impl Chart {
    /// The points that can be shown, y by its logarithm if so asked.
    fn drawn(&self, series: &Series) -> Vec<(f64, f64)> {
        let shown = |&(x, y): &(f64, f64)| (x, if self.log_y { y.log10() } else { y });
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
}
