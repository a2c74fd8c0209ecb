//! Colour conversion: transparency, grey and RGB, CMYK to RGB; and a single notice of each conversion.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use ddpm_spec::Alpha;

use super::decoded::Pixels;
use super::level::Level;

/// RGB from interleaved CMYK as stored in JPEG files, inverted (255 is no ink), without a colour profile.
pub(super) fn rgb_from_cmyk(cmyk: &[u8]) -> Vec<u8> {
    let (pixels, _) = cmyk.as_chunks::<4>();
    let to_rgb = |&[c, m, y, k]: &[u8; 4]| [c, m, y].map(|ink| k - (255 - ink).over(k, 0));
    pixels.iter().flat_map(to_rgb).collect()
}

impl<L: Level> Pixels<L> {
    /// Brings an image to `wanted` channels, or to one that [`draw`](super::fit::draw) copies to all of these.
    ///
    /// # Errors
    /// A phrase that says how many channels the image has, if neither grey nor RGB is in question.
    pub(super) fn with_channels(self, wanted: usize, alpha: Alpha) -> Result<Self, String> {
        let (channels, has_alpha) = (self.channels, self.alpha);
        let converted = match alpha {
            Alpha::Keep if !self.alpha && channels == wanted => self,
            Alpha::Keep => self.recoloured(wanted - 1).with_opacity(wanted - 1),
            Alpha::Over(colour) => self.over(colour.map(L::of_byte), wanted).recoloured(wanted),
        };
        let found = converted.channels;
        if found == wanted || (found == 1 && wanted == 3) {
            return Ok(converted);
        }
        let plural = if channels == 1 { "" } else { "s" };
        Err(match has_alpha {
            true => format!(
                "this image has {channels} channels, the last of which is opacity, and data.channels = {wanted}; to keep \
                 it, set data.alpha = \"keep\""
            ),
            false => format!("this image has {channels} channel{plural}, and data.channels = {wanted}"),
        })
    }

    /// Grey if `wanted` colours are one; others keep their number, which makes scaling cheaper.
    fn recoloured(self, wanted: usize) -> Self {
        let opacity = usize::from(self.alpha);
        if wanted != 1 || self.channels - opacity != 3 {
            return self;
        }
        self.map_pixels(1 + opacity, |pixel, out| {
            out.push(L::grey([pixel[0], pixel[1], pixel[2]]));
            out.extend(pixel.get(3));
        })
    }

    /// `colours` channels and opacity: grey is copied to all of these, and what has no opacity is opaque.
    fn with_opacity(self, colours: usize) -> Self {
        let (found, alpha) = (self.channels - usize::from(self.alpha), self.alpha);
        if (alpha && found == colours) || !(found == colours || found == 1) {
            return self;
        }
        let pixels = self.map_pixels(colours + 1, |pixel, out| {
            out.extend((0..colours).map(|c| pixel[c.min(found - 1)]));
            out.push(if alpha { pixel[found] } else { L::FULL });
        });
        Self { alpha: true, ..pixels }
    }

    /// Composites an image over a colour, if it has opacity, which is dropped. `wanted` says whether grey stays grey.
    fn over(self, colour: [L; 3], wanted: usize) -> Self {
        if !self.alpha {
            return self;
        }
        let found = self.channels - 1;
        let is_grey = colour[0] == colour[1] && colour[1] == colour[2];
        let kept = if found == 1 && wanted == 3 && !is_grey { 3 } else { found };
        let background = if kept == 1 { [L::grey(colour); 3] } else { colour };
        let pixels = self.map_pixels(kept, |pixel, out| {
            let opacity = pixel[found];
            out.extend(
                background
                    .iter()
                    .take(kept)
                    .enumerate()
                    .map(|(c, &behind)| pixel[c.min(found - 1)].over(opacity, behind)),
            );
        });
        Self { alpha: false, ..pixels }
    }

    /// Replaces each pixel by the `channels` values that `write` appends.
    fn map_pixels(self, channels: usize, write: impl Fn(&[L], &mut Vec<L>)) -> Self {
        let mut values = Vec::with_capacity(self.values.len() / self.channels * channels);
        self.values.chunks_exact(self.channels).for_each(|pixel| write(pixel, &mut values));
        Self { values, channels, ..self }
    }
}

/// What is outside an image in the margins of [`ddpm_spec::Fit::Pad`], for each of `channels`.
pub(crate) fn margin<L: Level>(alpha: Alpha, channels: usize) -> Vec<L> {
    match alpha {
        Alpha::Keep => vec![L::of_byte(0); channels],
        Alpha::Over(colour) if channels == 1 => vec![L::grey(colour.map(L::of_byte))],
        Alpha::Over(colour) => (0..channels).map(|c| L::of_byte(colour[c.min(2)])).collect(),
    }
}

/// The notices about conversions that were already logged for a data set.
#[derive(Default)]
pub(crate) struct Notices {
    to_grey: AtomicBool,
    to_colour: AtomicBool,
    to_bytes: AtomicBool,
}

impl Notices {
    /// Logs, once per data set, that images are converted to another number of channels. `path` is an example.
    pub(crate) fn converted(&self, path: &Path, from: usize, to: usize) {
        let path = path.display();
        if from == 3 && to == 1 && first(&self.to_grey) {
            tracing::warn!(
                "{path} is in colour and data.channels is 1: colour images are converted to grey (ITU-R BT.601). Set \
                 data.channels = 3 to learn colours"
            );
        } else if from == 1 && to == 3 && first(&self.to_colour) {
            tracing::info!(
                "{path} is grey and data.channels is 3: grey images are replicated to all three channels. Set \
                 data.channels = 1 if all images are grey"
            );
        }
    }

    /// Logs, once per data set, that images of 16 bits are reduced to 8. `path` is an example.
    pub(super) fn reduced(&self, path: &Path) {
        if first(&self.to_bytes) {
            tracing::info!(
                "{} has 16 bits, which are reduced to 8. Set data.range = [0, 65535] to keep them",
                path.display()
            );
        }
    }
}

/// Whether this was not logged before.
fn first(logged: &AtomicBool) -> bool {
    !logged.swap(true, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cmyk_equals_pillows() {
        // Image.merge("CMYK", 255 - stored).convert("RGB") of Pillow 13.0, for the stored values
        let stored =
            [[255, 255, 255, 255], [255, 255, 255, 0], [0, 255, 128, 255], [10, 20, 30, 200], [77, 99, 3, 131]];
        let expected = [[255, 255, 255], [0, 0, 0], [0, 255, 128], [8, 16, 24], [40, 51, 2]];
        assert_eq!(rgb_from_cmyk(stored.as_flattened()), expected.as_flattened());
    }

    fn converted(values: &[u8], channels: usize, wanted: usize, alpha: Alpha) -> Result<Vec<u8>, String> {
        let width = (values.len() / channels) as u32;
        let pixels = Pixels::new(values.to_vec(), width, 1, channels, matches!(channels, 2 | 4));
        pixels.with_channels(wanted, alpha).map(|pixels| pixels.values)
    }

    #[test]
    fn transparent_pixels_show_the_colour_behind_them() {
        let rgba = [200, 100, 50, 51, 9, 9, 9, 0, 1, 2, 3, 255];
        assert_eq!(converted(&rgba, 4, 3, Alpha::BLACK).unwrap(), [40, 20, 10, 0, 0, 0, 1, 2, 3]);
        assert_eq!(converted(&rgba, 4, 3, Alpha::Over([9, 0, 255])).unwrap(), [47, 20, 214, 9, 0, 255, 1, 2, 3]);
        assert_eq!(converted(&[200, 51, 9, 0], 2, 1, Alpha::BLACK).unwrap(), [40, 0]);
        assert_eq!(converted(&[200, 51, 9, 0], 2, 3, Alpha::WHITE).unwrap(), [244, 255]);
        assert_eq!(converted(&[9, 0], 2, 1, Alpha::Over([255, 0, 0])).unwrap(), [76]);
        assert_eq!(converted(&[9, 0], 2, 3, Alpha::Over([255, 0, 0])).unwrap(), [255, 0, 0]);
        assert_eq!(converted(&[1, 2, 3, 0], 4, 1, Alpha::WHITE).unwrap(), [255]);
    }

    #[test]
    fn opacity_is_kept_as_the_last_channel() {
        let rgba = [200, 100, 50, 51, 1, 2, 3, 255];
        assert_eq!(converted(&rgba, 4, 4, Alpha::Keep).unwrap(), rgba);
        assert_eq!(converted(&rgba, 4, 2, Alpha::Keep).unwrap(), [124, 51, 2, 255]);
        assert_eq!(converted(&[9, 51], 2, 4, Alpha::Keep).unwrap(), [9, 9, 9, 51]);
        assert_eq!(converted(&[1, 2, 3], 3, 4, Alpha::Keep).unwrap(), [1, 2, 3, 255]);
        assert_eq!(converted(&[7, 8], 1, 4, Alpha::Keep).unwrap(), [7, 7, 7, 255, 8, 8, 8, 255]);
    }

    #[test]
    fn other_numbers_of_channels_are_refused() {
        let refusal =
            |channels: usize, wanted| converted(&vec![0; channels], channels, wanted, Alpha::BLACK).unwrap_err();
        assert_eq!(refusal(5, 3), "this image has 5 channels, and data.channels = 3");
        assert_eq!(refusal(1, 5), "this image has 1 channel, and data.channels = 5");
        assert!(refusal(4, 4).contains("data.alpha = \"keep\""));
        assert!(converted(&[0; 5], 5, 4, Alpha::Keep).is_err());
    }

    #[test]
    fn margins_have_the_colour_behind_transparency() {
        assert_eq!(margin::<u8>(Alpha::Over([255, 0, 9]), 3), [255, 0, 9]);
        assert_eq!(margin::<u8>(Alpha::Over([255, 0, 0]), 1), [76]);
        assert_eq!(margin::<u8>(Alpha::WHITE, 5), [255; 5]);
        assert_eq!(margin::<f32>(Alpha::WHITE, 1), [1.0]);
        assert_eq!(margin::<u8>(Alpha::Keep, 4), [0; 4]);
    }
}
