//! A finished picture: the result of drawing a grid or a chart, ready for a PNG file or TensorBoard.

use std::io::{self, Cursor};
use std::path::Path;

use image::{DynamicImage, ImageFormat};

use crate::file::write_atomic;

/// A grey or RGB picture with 8 bits per channel.
pub struct Picture(pub(crate) DynamicImage);

impl Picture {
    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.0.width()
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.0.height()
    }

    /// 1 for grey, 3 for RGB.
    pub fn channels(&self) -> u8 {
        self.0.color().channel_count()
    }

    /// The contents of a PNG file of the picture.
    pub fn encode_png(&self) -> Vec<u8> {
        let mut png = Cursor::new(Vec::new());
        self.0.write_to(&mut png, ImageFormat::Png).expect("PNG holds any 8-bit picture, and memory takes it");
        png.into_inner()
    }

    /// Writes the PNG to `path` atomically, creating parent directories.
    pub fn save_png(&self, path: &Path) -> io::Result<()> {
        write_atomic(path, &self.encode_png())
    }
}
