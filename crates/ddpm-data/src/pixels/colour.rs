//! Colours: grey from RGB, RGB from CMYK, what is transparent; and saying once that colours are changed.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Grey from interleaved RGB by the weights of ITU-R BT.601, 0.299, 0.587 and 0.114, in 16 bits of fraction, rounded:
/// what Pillow's `convert("L")` gives, to the bit.
pub(super) fn grey(rgb: &[u8]) -> Vec<u8> {
    let (pixels, _) = rgb.as_chunks::<3>();
    let luma = |&[r, g, b]: &[u8; 3]| {
        ((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000) >> 16) as u8
    };
    pixels.iter().map(luma).collect()
}

/// RGB from interleaved CMYK as JPEG files hold it, inverted (255 is no ink), without a colour profile.
pub(super) fn rgb_from_cmyk(cmyk: &[u8]) -> Vec<u8> {
    let (pixels, _) = cmyk.as_chunks::<4>();
    let through = |&[c, m, y, k]: &[u8; 4]| [c, m, y].map(|ink| k - share(255 - ink, k));
    pixels.iter().flat_map(through).collect()
}

/// Composites pixels of `N` components, the last of them alpha, over black and drops the alpha.
pub(super) fn over_black<const N: usize>(pixels: &[u8]) -> Vec<u8> {
    let (pixels, _) = pixels.as_chunks::<N>();
    pixels.iter().flat_map(|pixel| pixel[..N - 1].iter().map(|&value| share(value, pixel[N - 1]))).collect()
}

/// `value * part / 255`, rounded.
fn share(value: u8, part: u8) -> u8 {
    ((u32::from(value) * u32::from(part) + 127) / 255) as u8
}

/// What was said about the colours of a data set.
#[derive(Default)]
pub(crate) struct Notices {
    to_grey: AtomicBool,
    to_colour: AtomicBool,
}

impl Notices {
    /// Logs it, once a data set, where images of one number of channels become images of another. `path` is an example.
    pub(crate) fn converted(&self, path: &Path, from: usize, to: usize) {
        let path = path.display();
        let first = |said: &AtomicBool| !said.swap(true, Ordering::Relaxed);
        if from > to && first(&self.to_grey) {
            tracing::warn!(
                "{path} is in colour and data.channels is 1: images in colour are made grey (ITU-R BT.601). Set \
                 data.channels = 3 to learn colours"
            );
        } else if from < to && first(&self.to_colour) {
            tracing::info!(
                "{path} is grey and data.channels is 3: what is grey fills all three channels alike. Set \
                 data.channels = 1 where all images are grey"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{grey, over_black, rgb_from_cmyk};

    #[test]
    fn grey_is_pillows() {
        // Image.new("RGB", (1, 1), colour).convert("L") of Pillow 13.0
        let colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255; 3], [1, 2, 3], [200, 100, 50], [230, 20, 20]];
        assert_eq!(grey(colours.as_flattened()), [76, 150, 29, 255, 2, 124, 83]);
    }

    #[test]
    fn cmyk_is_pillows() {
        // Image.merge("CMYK", 255 - stored).convert("RGB") of Pillow 13.0, of what the file stores
        let stored =
            [[255, 255, 255, 255], [255, 255, 255, 0], [0, 255, 128, 255], [10, 20, 30, 200], [77, 99, 3, 131]];
        let expected = [[255, 255, 255], [0, 0, 0], [0, 255, 128], [8, 16, 24], [40, 51, 2]];
        assert_eq!(rgb_from_cmyk(stored.as_flattened()), expected.as_flattened());
    }

    #[test]
    fn what_is_transparent_is_black() {
        assert_eq!(over_black::<4>(&[200, 100, 50, 51, 9, 9, 9, 0, 1, 2, 3, 255]), [40, 20, 10, 0, 0, 0, 1, 2, 3]);
        assert_eq!(over_black::<2>(&[200, 51, 9, 0]), [40, 0]);
    }
}
