//! An image as a decoder gives it: any number of channels, in bytes, 16-bit words or floats.

use image::DynamicImage;

/// The reason for refusing numbers where bytes are wanted.
const NEEDS_RANGE: &str = "this file holds numbers rather than bytes; set data.range to the two that become black and \
                           white, such as data.range = [0, 65535]";

/// An upright image, interleaved.
pub(super) struct Decoded {
    pub width: u32,
    pub height: u32,
    /// The samples are those of the image at one part in so many of its width and height, rounded up.
    pub shrunk: u32,
    /// Samples per pixel.
    pub channels: usize,
    /// Whether the last channel is opacity.
    pub alpha: bool,
    pub samples: Samples,
}

/// The samples of an image as stored.
pub(super) enum Samples {
    /// From 0 to 255.
    Bytes(Vec<u8>),
    /// From 0 to 65535.
    Words(Vec<u16>),
    /// Numbers without a range of their own.
    Numbers(Vec<f32>),
}

/// Pixels of one kind of level, interleaved.
pub(crate) struct Pixels<L> {
    pub values: Vec<L>,
    pub width: u32,
    pub height: u32,
    /// The values are those of the image at one part in so many of its width and height, rounded up.
    pub shrunk: u32,
    pub channels: usize,
    /// Whether the last channel is opacity.
    pub alpha: bool,
}

impl Samples {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Bytes(values) => values.len(),
            Self::Words(values) => values.len(),
            Self::Numbers(values) => values.len(),
        }
    }

    /// The samples at these indices.
    fn at(&self, indices: impl Iterator<Item = usize>) -> Self {
        match self {
            Self::Bytes(values) => Self::Bytes(indices.map(|index| values[index]).collect()),
            Self::Words(values) => Self::Words(indices.map(|index| values[index]).collect()),
            Self::Numbers(values) => Self::Numbers(indices.map(|index| values[index]).collect()),
        }
    }
}

impl<L> Pixels<L> {
    pub(crate) fn new(values: Vec<L>, width: u32, height: u32, channels: usize, alpha: bool) -> Self {
        Self { values, width, height, shrunk: 1, channels, alpha }
    }
}

impl From<DynamicImage> for Decoded {
    fn from(image: DynamicImage) -> Self {
        let (width, height, colour) = (image.width(), image.height(), image.color());
        let samples = match image {
            DynamicImage::ImageLuma8(image) => Samples::Bytes(image.into_raw()),
            DynamicImage::ImageLumaA8(image) => Samples::Bytes(image.into_raw()),
            DynamicImage::ImageRgb8(image) => Samples::Bytes(image.into_raw()),
            DynamicImage::ImageRgba8(image) => Samples::Bytes(image.into_raw()),
            DynamicImage::ImageLuma16(image) => Samples::Words(image.into_raw()),
            DynamicImage::ImageLumaA16(image) => Samples::Words(image.into_raw()),
            DynamicImage::ImageRgb16(image) => Samples::Words(image.into_raw()),
            DynamicImage::ImageRgba16(image) => Samples::Words(image.into_raw()),
            // No decoder here gives floats.
            other if colour.has_alpha() => Samples::Words(other.into_rgba16().into_raw()),
            other => Samples::Words(other.into_rgb16().into_raw()),
        };
        let channels = usize::from(colour.channel_count());
        Self { width, height, shrunk: 1, channels, alpha: colour.has_alpha(), samples }
    }
}

impl Decoded {
    /// The channels without opacity.
    pub(super) fn colours(&self) -> usize {
        self.channels - usize::from(self.alpha)
    }

    /// The image upright, if it was stored in this orientation, numbered from 1 to 8 as in EXIF data; and interleaved,
    /// if it was stored plane after plane.
    pub(super) fn rearranged(self, orientation: u16, is_planar: bool) -> Self {
        if !is_planar && !(2..=8).contains(&orientation) {
            return self;
        }
        let (w, h, channels) = (self.width as usize, self.height as usize, self.channels);
        let (width, height) = if orientation >= 5 { (h, w) } else { (w, h) };
        let stored = |x: usize, y: usize| match orientation {
            2 => (w - 1 - x, y),
            3 => (w - 1 - x, h - 1 - y),
            4 => (x, h - 1 - y),
            5 => (y, x),
            6 => (y, h - 1 - x),
            7 => (w - 1 - y, h - 1 - x),
            8 => (w - 1 - y, x),
            _ => (x, y),
        };
        let index = |x: usize, y: usize, c: usize| {
            let (x, y) = stored(x, y);
            if is_planar { (c * h + y) * w + x } else { (y * w + x) * channels + c }
        };
        let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let index = &index;
        let samples = self.samples.at(pixels.flat_map(|(x, y)| (0..channels).map(move |c| index(x, y, c))));
        Self { samples, width: width as u32, height: height as u32, ..self }
    }

    /// As bytes. Words are reduced to the nearest of 256 levels.
    pub(super) fn into_bytes(self) -> Result<Pixels<u8>, String> {
        let Self { width, height, shrunk, channels, alpha, samples } = self;
        let values = match samples {
            Samples::Bytes(bytes) => bytes,
            Samples::Words(words) => words.into_iter().map(byte).collect(),
            Samples::Numbers(_) => return Err(NEEDS_RANGE.into()),
        };
        Ok(Pixels { values, width, height, shrunk, channels, alpha })
    }

    /// As floats, with `low` at 0 and `high` at 1; opacity from 0 to 1.
    pub(super) fn into_floats(self, [low, high]: [f64; 2]) -> Result<Pixels<f32>, String> {
        let scaled = |value: f64| ((value - low) / (high - low)) as f32;
        let (values, most): (Vec<f32>, f32) = match &self.samples {
            Samples::Bytes(_) if high > f64::from(u8::MAX) => {
                return Err(format!(
                    "this image has 8 bits, and data.range = [{low}, {high}] describes more; give all images the same \
                     depth"
                ));
            }
            Samples::Bytes(bytes) => (bytes.iter().map(|&byte| f32::from(byte)).collect(), u8::MAX.into()),
            Samples::Words(words) => (words.iter().map(|&word| f32::from(word)).collect(), u16::MAX.into()),
            Samples::Numbers(numbers) => (numbers.clone(), 1.0),
        };
        if values.iter().any(|value| !value.is_finite()) {
            return Err("this file holds values that are not finite".into());
        }
        let opacity = |index: usize| self.alpha && (index + 1).is_multiple_of(self.channels);
        let level = |(index, value)| if opacity(index) { value / most } else { scaled(f64::from(value)) };
        let values = values.into_iter().enumerate().map(level).collect();
        let Self { width, height, shrunk, channels, alpha, .. } = self;
        Ok(Pixels { values, width, height, shrunk, channels, alpha })
    }
}

/// The nearest of 256 levels.
fn byte(word: u16) -> u8 {
    ((u32::from(word) + 128) / 257) as u8
}

#[cfg(test)]
mod tests {
    use image::metadata::Orientation;
    use image::{DynamicImage, ImageBuffer, RgbImage};

    use super::{Decoded, Samples, byte};

    #[test]
    fn orientations_are_those_of_exif() {
        let stored: Vec<u8> = (0..3 * 2 * 3).collect();
        let image = DynamicImage::from(RgbImage::from_raw(3, 2, stored.clone()).unwrap());
        let planar = Samples::Bytes(stored.clone()).at((0..3).flat_map(|c| (0..6).map(move |pixel| 3 * pixel + c)));
        let decoded = |samples| Decoded { width: 3, height: 2, shrunk: 1, channels: 3, alpha: false, samples };
        for orientation in 1..=8 {
            let mut expected = image.clone();
            expected.apply_orientation(Orientation::from_exif(orientation).unwrap());
            let planar = Samples::Bytes(planar.at(0..18).into_bytes());
            for (samples, is_planar) in [(Samples::Bytes(stored.clone()), false), (planar, true)] {
                let upright = decoded(samples).rearranged(orientation.into(), is_planar);
                assert_eq!((upright.width, upright.height), (expected.width(), expected.height()));
                assert_eq!(upright.samples.into_bytes(), expected.as_bytes(), "{orientation}");
            }
        }
    }

    impl Samples {
        fn into_bytes(self) -> Vec<u8> {
            match self {
                Samples::Bytes(bytes) => bytes,
                _ => panic!("bytes are expected"),
            }
        }
    }

    #[test]
    fn words_are_rounded_to_bytes() {
        let words: Vec<u16> = (0..=u16::MAX).collect();
        let image = ImageBuffer::from_raw(256, 256, words.clone()).map(DynamicImage::ImageLuma16).unwrap();
        assert_eq!(words.iter().map(|&word| byte(word)).collect::<Vec<_>>(), image.into_luma8().into_raw());
        let nearest = |word: u16| (f64::from(word) * 255.0 / 65535.0).round() as u8;
        assert!(words.iter().all(|&word| byte(word) == nearest(word)));
    }
}
