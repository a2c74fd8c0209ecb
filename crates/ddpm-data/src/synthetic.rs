//! Drawn digits: a labelled data set that needs no download.

use crate::hash::{Draws, keyed};
use crate::source::check_request;
use crate::{Class, DataError, ImageShape, Source, glyphs};

/// The stream of [`keyed`] for the digits.
const STREAM: u64 = 2;
/// MNIST digits fill 20 of 28 pixels.
const FILL: f32 = 20.0 / 28.0;

/// `count` digits, white (or tinted, with three channels) on black. Digit `id` has class `id % 10`; its variant, slant,
/// size, position and pen are a function of (seed, id) alone.
pub(crate) struct Synthetic {
    count: u64,
    seed: u64,
    image: ImageShape,
}

impl Synthetic {
    pub(crate) fn new(count: u64, seed: u64, image: ImageShape) -> Self {
        Synthetic { count, seed, image }
    }
}

impl Source for Synthetic {
    fn len(&self) -> u64 {
        self.count
    }

    fn image(&self) -> ImageShape {
        self.image
    }

    fn classes(&self) -> Option<usize> {
        Some(10)
    }

    fn class_table(&self) -> Vec<Class> {
        (0..10).map(|class| Class { name: class.to_string(), images: (self.count + 9 - class) / 10 }).collect()
    }

    fn fingerprint(&self) -> u64 {
        // The configuration already determines the digits.
        0
    }

    fn read(&self, id: u64, out: &mut [u8]) -> Result<Option<u32>, DataError> {
        check_request(self, id, out)?;
        let class = id % 10;
        let mut draws = Draws::new(keyed(self.seed, STREAM, id));
        let ways = glyphs::shapes(class as usize);
        let shape = &ways[(draws.bits() % ways.len() as u64) as usize];
        let pose = Pose::draw(&mut draws, self.image);
        let (first, rest) = out.split_at_mut(self.image.pixels());
        first.fill(0);
        for &[from, to] in shape {
            stroke(first, self.image, pose.to_pixels(from), pose.to_pixels(to), pose.half_width);
        }
        if !rest.is_empty() {
            let tint = tint(&mut draws);
            for (plane, tint) in rest.chunks_exact_mut(first.len()).zip(&tint[1..]) {
                plane.iter_mut().zip(&*first).for_each(|(out, &value)| *out = (f32::from(value) * tint) as u8);
            }
            first.iter_mut().for_each(|value| *value = (f32::from(*value) * tint[0]) as u8);
        }
        Ok(Some(class as u32))
    }

    fn describe(&self) -> String {
        format!("{} drawn digits of seed {}, 10 classes", self.count, self.seed)
    }
}

/// The pose of one digit in its image: an affine map from the glyph's box to pixels, and the pen.
struct Pose {
    matrix: [f32; 4],
    shift: (f32, f32),
    half_width: f32,
}

impl Pose {
    /// In the middle of an image, as large as its shorter side allows.
    fn draw(draws: &mut Draws, image: ImageShape) -> Self {
        let side = image.width.min(image.height) as f32;
        let pen = draws.uniform(0.08, 0.15);
        // The pen adds its width to the height of the shape.
        let height = side * FILL * draws.uniform(0.86, 1.04) / (1.0 + pen);
        let width = height * draws.uniform(0.82, 1.08);
        // Rotation by up to 11 degrees, from the tangent of the half angle: the same arithmetic on every machine.
        let t = draws.uniform(-0.1, 0.1);
        let (cos, sin) = ((1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t));
        let shear = draws.uniform(-0.2, 0.1);
        let mut offset = |room: usize| side * (0.5 + draws.uniform(-0.04, 0.04)) + (room as f32 - side) / 2.0;
        Pose {
            matrix: [
                cos * width,
                cos * shear * height - sin * height,
                sin * width,
                sin * shear * height + cos * height,
            ],
            shift: (offset(image.width), offset(image.height)),
            half_width: 0.5 * pen * height,
        }
    }

    fn to_pixels(&self, (x, y): (f32, f32)) -> (f32, f32) {
        let [a, b, c, d] = self.matrix;
        (a * x + b * y + self.shift.0, c * x + d * y + self.shift.1)
    }
}

/// Draws one straight stroke with round ends: the brightness of a pixel is the distance of its centre inside the edge
/// of the stroke, clamped to the width of one pixel. Only pixels within reach of the stroke are visited; where strokes
/// overlap, the brighter value is kept.
fn stroke(plane: &mut [u8], image: ImageShape, from: (f32, f32), to: (f32, f32), half_width: f32) {
    let reach = half_width + 0.5;
    let span = |a: f32, b: f32, size: usize| {
        let first = (a.min(b) - reach).max(0.0) as usize;
        let last = (a.max(b) + reach).ceil().clamp(0.0, size as f32) as usize;
        first.min(last)..last
    };
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let length = (dx * dx + dy * dy).max(f32::MIN_POSITIVE);
    let columns = span(from.0, to.0, image.width);
    for y in span(from.1, to.1, image.height) {
        let row = &mut plane[y * image.width..][columns.clone()];
        let v = y as f32 + 0.5 - from.1;
        for (x, pixel) in columns.clone().zip(row) {
            let u = x as f32 + 0.5 - from.0;
            let along = ((u * dx + v * dy) / length).clamp(0.0, 1.0);
            let (ex, ey) = (u - along * dx, v - along * dy);
            let inside = (reach - (ex * ex + ey * ey).sqrt()).clamp(0.0, 1.0);
            *pixel = (*pixel).max((inside * 255.0 + 0.5) as u8);
        }
    }
}

/// A light colour of random hue: red, green and blue, the strongest 1, the weakest at least 0.2.
fn tint(draws: &mut Draws) -> [f32; 3] {
    let hue = draws.uniform(0.0, 6.0);
    let white = draws.uniform(0.2, 0.6);
    [3.0, 5.0, 1.0].map(|opposite: f32| {
        let away = (hue - opposite).abs();
        let pure = (away.min(6.0 - away) - 1.0).clamp(0.0, 1.0);
        white + (1.0 - white) * pure
    })
}
