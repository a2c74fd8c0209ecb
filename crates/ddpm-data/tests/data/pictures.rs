//! Test images, and encoding them to files.

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use std::io::Cursor;
use turbojpeg::{Compressor, PixelFormat, Subsamp};

/// How to encode a JPEG.
#[derive(Clone, Copy, Debug)]
pub struct Jpeg {
    pub subsamp: Subsamp,
    pub quality: i32,
    pub progressive: bool,
    pub arithmetic: bool,
}

impl Default for Jpeg {
    fn default() -> Self {
        Jpeg { subsamp: Subsamp::Sub2x2, quality: 92, progressive: false, arithmetic: false }
    }
}

/// Encodes an image in grey or RGB.
pub fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let image = image.into();
    if format == ImageFormat::Jpeg {
        return jpeg(&image, Jpeg::default());
    }
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).expect("to memory");
    bytes.into_inner()
}

/// Encodes an image in grey or RGB as JPEG.
pub fn jpeg(image: &DynamicImage, how: Jpeg) -> Vec<u8> {
    let (format, subsamp) = match image.color().has_color() {
        true => (PixelFormat::RGB, how.subsamp),
        false => (PixelFormat::GRAY, Subsamp::Gray),
    };
    let (width, height) = (image.width() as usize, image.height() as usize);
    let pitch = width * format.size();
    let mut compressor = Compressor::new().expect("compressor");
    compressor.set_quality(how.quality).expect("quality");
    compressor.set_subsamp(subsamp).expect("subsampling");
    compressor.set_progressive(how.progressive).expect("progressive");
    compressor.set_arithmetic(how.arithmetic).expect("arithmetic");
    let pixels = turbojpeg::Image { pixels: image.as_bytes(), width, pitch, height, format };
    compressor.compress_to_vec(pixels).expect("to memory")
}

/// An image resembling a photograph: gradients, edges and grain, different for each seed.
pub fn photo(width: u32, height: u32, seed: u64) -> DynamicImage {
    let mut dice = Dice(seed);
    let mut bumps = [[0u32; 3]; 3];
    bumps.as_flattened_mut().iter_mut().for_each(|bump| *bump = dice.below(200) as u32);
    RgbImage::from_fn(width, height, |x, y| {
        let inside = |[left, top, side]: [u32; 3]| (left..left + side).contains(&x) && (top..top + side).contains(&y);
        let light = bumps.iter().filter(|bump| inside(**bump)).count() as u32 * 60;
        let slopes = [x * 160 / width, y * 160 / height, (x + y) * 80 / (width + height)];
        Rgb(slopes.map(|slope| (slope + light + dice.below(24) as u32).min(255) as u8))
    })
    .into()
}

/// SplitMix64.
pub struct Dice(pub u64);

impl Dice {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `n - 1`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.bits() as u8).collect()
    }
}
