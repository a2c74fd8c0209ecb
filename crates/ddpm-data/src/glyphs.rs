//! The shapes of the ten digits, as strokes around the origin.
//!
//! Each digit fills a box of height 1 and width about 0.64 around (0, 0), x to the right, y down.

use std::sync::LazyLock;

/// A part of a pen stroke.
enum Piece {
    /// Straight lines from point to point.
    Line(&'static [(f32, f32)]),
    /// Part of an ellipse: centre, radii, and its start and end angles in degrees, clockwise from the right.
    Arc((f64, f64), (f64, f64), (f64, f64)),
}
use Piece::{Arc, Line};

/// The variants of each digit; pieces that share an end point look like one stroke.
const DIGITS: [&[&[Piece]]; 10] = [
    &[&[Arc((0.0, 0.0), (0.3, 0.5), (0.0, 360.0))]],
    &[
        &[Line(&[(-0.17, -0.27), (0.05, -0.5), (0.05, 0.5)])],
        &[Line(&[(-0.17, -0.27), (0.05, -0.5), (0.05, 0.5)]), Line(&[(-0.2, 0.5), (0.3, 0.5)])],
    ],
    &[&[Arc((0.0, -0.22), (0.29, 0.28), (190.0, 400.0)), Line(&[(0.222, -0.04), (-0.3, 0.5), (0.32, 0.5)])]],
    &[&[Arc((-0.03, -0.255), (0.27, 0.245), (200.0, 450.0)), Arc((-0.03, 0.245), (0.32, 0.255), (270.0, 515.0))]],
    &[
        &[Line(&[(0.14, 0.5), (0.14, -0.5), (-0.33, 0.2), (0.34, 0.2)])],
        &[Line(&[(-0.2, -0.5), (-0.31, 0.1), (0.33, 0.1)]), Line(&[(0.15, -0.36), (0.15, 0.5)])],
    ],
    &[&[Line(&[(0.27, -0.5), (-0.22, -0.5), (-0.252, -0.046)]), Arc((-0.03, 0.18), (0.314, 0.32), (225.0, 510.0))]],
    &[&[Arc((0.0, 0.21), (0.29, 0.29), (0.0, 360.0)), Arc((0.24, 0.21), (0.53, 0.71), (180.0, 272.0))]],
    &[
        &[Line(&[(-0.3, -0.5), (0.3, -0.5), (-0.08, 0.5)])],
        &[Line(&[(-0.3, -0.5), (0.3, -0.5), (-0.08, 0.5)]), Line(&[(-0.14, 0.02), (0.28, 0.02)])],
    ],
    &[&[Arc((0.0, -0.26), (0.23, 0.24), (0.0, 360.0)), Arc((0.0, 0.24), (0.29, 0.26), (0.0, 360.0))]],
    &[
        &[Arc((0.0, -0.21), (0.29, 0.29), (0.0, 360.0)), Arc((-0.24, -0.21), (0.53, 0.71), (0.0, 92.0))],
        &[Arc((0.0, -0.21), (0.29, 0.29), (0.0, 360.0)), Line(&[(0.29, -0.21), (0.22, 0.5)])],
    ],
];

/// The two ends of a straight piece of a stroke.
pub(crate) type Segment = [(f32, f32); 2];

/// The variants of `digit` (0 to 9), each flattened to straight segments.
pub(crate) fn shapes(digit: usize) -> &'static [Vec<Segment>] {
    static SHAPES: LazyLock<[Vec<Vec<Segment>>; 10]> =
        LazyLock::new(|| DIGITS.map(|variants| variants.iter().map(|pieces| flatten(pieces)).collect()));
    &SHAPES[digit]
}

fn flatten(pieces: &[Piece]) -> Vec<Segment> {
    let chain = |points: &[(f32, f32)]| points.array_windows().copied().collect::<Vec<Segment>>();
    pieces
        .iter()
        .flat_map(|piece| match piece {
            Line(points) => chain(points),
            // Rounded from f64, so that differences in the last bit of sine between math libraries do not matter.
            Arc(centre, radii, (from, to)) => {
                let steps = ((to - from) / 12.0).ceil();
                let point = |i: u32| {
                    let (sin, cos) = (from + (to - from) * f64::from(i) / steps).to_radians().sin_cos();
                    ((centre.0 + radii.0 * cos) as f32, (centre.1 + radii.1 * sin) as f32)
                };
                chain(&(0..=steps as u32).map(point).collect::<Vec<_>>())
            }
        })
        .collect()
}
