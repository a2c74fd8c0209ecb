//! Colour conversion: RGB to grey, CMYK to RGB, transparency; and a single notice that colours are converted.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Grey from interleaved RGB with the weights of ITU-R BT.601, 0.299, 0.587 and 0.114, as 16-bit fixed point, rounded:
/// bit for bit the result of Pillow's `convert("L")`.
pub(super) fn grey(rgb: &[u8]) -> Vec<u8> {
    let (pixels, _) = rgb.as_chunks::<3>();
    let luma = |&[r, g, b]: &[u8; 3]| {
        ((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000) >> 16) as u8
    };
    pixels.iter().map(luma).collect()
}

/// RGB from interleaved CMYK as stored in JPEG files, inverted (255 is no ink), without a colour profile.
pub(super) fn rgb_from_cmyk(cmyk: &[u8]) -> Vec<u8> {
    let (pixels, _) = cmyk.as_chunks::<4>();
    let to_rgb = |&[c, m, y, k]: &[u8; 4]| [c, m, y].map(|ink| k - scale_by(255 - ink, k));
    pixels.iter().flat_map(to_rgb).collect()
}

/// Composites pixels of `N` components, the last of which is alpha, over black and drops the alpha.
pub(super) fn over_black<const N: usize>(pixels: &[u8]) -> Vec<u8> {
    let (pixels, _) = pixels.as_chunks::<N>();
    pixels.iter().flat_map(|pixel| pixel[..N - 1].iter().map(|&value| scale_by(value, pixel[N - 1]))).collect()
}

/// `value * part / 255`, rounded.
fn scale_by(value: u8, part: u8) -> u8 {
    ((u32::from(value) * u32::from(part) + 127) / 255) as u8
}

/// The notices about colour conversion that were already logged for a data set.
#[derive(Default)]
pub(crate) struct ColourNotices {
    to_grey: AtomicBool,
    to_colour: AtomicBool,
}

impl ColourNotices {
    /// Logs, once per data set, that images are converted to another number of channels. `path` is an example.
    pub(crate) fn converted(&self, path: &Path, from: usize, to: usize) {
        let path = path.display();
        let first = |logged: &AtomicBool| !logged.swap(true, Ordering::Relaxed);
        if from > to && first(&self.to_grey) {
            tracing::warn!(
                "{path} is in colour and data.channels is 1: colour images are converted to grey (ITU-R BT.601). Set \
                 data.channels = 3 to learn colours"
            );
        } else if from < to && first(&self.to_colour) {
            tracing::info!(
                "{path} is grey and data.channels is 3: grey images are replicated to all three channels. Set \
                 data.channels = 1 if all images are grey"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{grey, over_black, rgb_from_cmyk};

    #[test]
    fn grey_equals_pillows() {
        // Image.new("RGB", (1, 1), colour).convert("L") of Pillow 13.0
        let colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255; 3], [1, 2, 3], [200, 100, 50], [230, 20, 20]];
        assert_eq!(grey(colours.as_flattened()), [76, 150, 29, 255, 2, 124, 83]);
    }

    #[test]
    fn cmyk_equals_pillows() {
        // Image.merge("CMYK", 255 - stored).convert("RGB") of Pillow 13.0, for the stored values
        let stored =
            [[255, 255, 255, 255], [255, 255, 255, 0], [0, 255, 128, 255], [10, 20, 30, 200], [77, 99, 3, 131]];
        let expected = [[255, 255, 255], [0, 0, 0], [0, 255, 128], [8, 16, 24], [40, 51, 2]];
        assert_eq!(rgb_from_cmyk(stored.as_flattened()), expected.as_flattened());
    }

    #[test]
    fn transparent_pixels_become_black() {
        assert_eq!(over_black::<4>(&[200, 100, 50, 51, 9, 9, 9, 0, 1, 2, 3, 255]), [40, 20, 10, 0, 0, 0, 1, 2, 3]);
        assert_eq!(over_black::<2>(&[200, 51, 9, 0]), [40, 0]);
    }
}
