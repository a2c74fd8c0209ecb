//! The two kinds of values that pixels are worked on in: bytes, and floats with black at 0 and white at 1.

use fast_image_resize::PixelTrait;
use fast_image_resize::pixels::{F32, F32x2, F32x3, F32x4, U8, U8x2, U8x3, U8x4};

/// A value of a pixel.
pub(crate) trait Level: bytemuck::Pod + PartialEq {
    /// Full opacity, and white.
    const FULL: Self;

    /// A pixel of one of these values.
    type One: PixelTrait;
    /// A pixel of two.
    type Two: PixelTrait;
    /// A pixel of three.
    type Three: PixelTrait;
    /// A pixel of four.
    type Four: PixelTrait;

    /// The level of a byte.
    fn of_byte(byte: u8) -> Self;

    /// Grey with the weights of ITU-R BT.601: 0.299, 0.587 and 0.114.
    fn grey(rgb: [Self; 3]) -> Self;

    /// This value, of a pixel of such an opacity, in front of another.
    fn over(self, opacity: Self, background: Self) -> Self;
}

/// The weights of grey in units of 2^-16, which add up to 1.
const WEIGHTS: [u16; 3] = [19595, 38470, 7471];

impl Level for u8 {
    const FULL: Self = u8::MAX;

    type One = U8;
    type Two = U8x2;
    type Three = U8x3;
    type Four = U8x4;

    fn of_byte(byte: u8) -> Self {
        byte
    }

    /// Rounded: bit for bit the result of Pillow's `convert("L")`.
    fn grey(rgb: [Self; 3]) -> Self {
        let sum: u32 = rgb.into_iter().zip(WEIGHTS).map(|(value, weight)| u32::from(value) * u32::from(weight)).sum();
        ((sum + 0x8000) >> 16) as u8
    }

    fn over(self, opacity: Self, background: Self) -> Self {
        let [value, front, back] = [self, opacity, background].map(u32::from);
        ((value * front + back * (255 - front) + 127) / 255) as u8
    }
}

impl Level for f32 {
    const FULL: Self = 1.0;

    type One = F32;
    type Two = F32x2;
    type Three = F32x3;
    type Four = F32x4;

    fn of_byte(byte: u8) -> Self {
        f32::from(byte) / 255.0
    }

    fn grey(rgb: [Self; 3]) -> Self {
        rgb.into_iter().zip(WEIGHTS).map(|(value, weight)| value * (f32::from(weight) / 65536.0)).sum()
    }

    fn over(self, opacity: Self, background: Self) -> Self {
        background + (self - background) * opacity
    }
}

#[cfg(test)]
mod tests {
    use super::Level;

    #[test]
    fn grey_equals_pillows() {
        // Image.new("RGB", (1, 1), colour).convert("L") of Pillow 13.0
        let colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255; 3], [1, 2, 3], [200, 100, 50], [230, 20, 20]];
        assert_eq!(colours.map(u8::grey), [76, 150, 29, 255, 2, 124, 83]);
        for colour in colours {
            let exact = f32::grey(colour.map(f32::of_byte)) * 255.0;
            assert!((exact - f32::from(u8::grey(colour))).abs() < 0.501, "{colour:?}: {exact}");
        }
    }

    #[test]
    fn grey_of_grey_is_itself() {
        assert!((0..=255).all(|level| u8::grey([level; 3]) == level));
    }

    #[test]
    fn opacity_mixes_with_what_is_behind() {
        assert_eq!([51, 0, 255].map(|opacity| 200u8.over(opacity, 0)), [40, 0, 200]);
        assert_eq!([51, 0, 255].map(|opacity| 200u8.over(opacity, 255)), [244, 255, 200]);
        assert_eq!([0.25, 0.0, 1.0].map(|opacity| 0.5f32.over(opacity, 1.0)), [0.875, 1.0, 0.5]);
    }
}
