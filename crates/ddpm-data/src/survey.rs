//! A survey of a data set: which images are readable, and the statistics of those that are.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::hash::Fingerprint;
use crate::open::levels;
use crate::source::image_bytes;
use crate::{DataError, Depth, Source, parallel, pixels};

/// Images of one unit of work.
const CHUNK: u64 = 256;
/// Images that are kept for a preview.
pub const PREVIEW: u64 = 64;

/// What was found in the images of a data set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey {
    /// The images that were read.
    pub read: u64,
    /// What is wrong with the others, one phrase each, in the order of their ids.
    pub faults: Vec<String>,
    /// Whether training would end at one of them.
    pub ends: bool,
    /// The number of images of each class.
    pub labels: BTreeMap<u32, u64>,
    /// Sum and sum of squares of the values of each channel, of 255; exact if the values are bytes.
    pub channels: Vec<(f64, f64)>,
    /// Number of values of each channel.
    pub values: u64,
    /// The usable images among the first [`PREVIEW`], one after the other, in 256 levels.
    pub preview: Vec<u8>,
    /// Width and height of the images as they are stored, with their numbers; empty unless asked for.
    pub sizes: BTreeMap<(usize, usize), u64>,
    /// The ids of images with the same pixels, unless there is only one with these; empty unless asked for.
    pub duplicates: Vec<Vec<u64>>,
    /// A hash of each image's pixels, with its id.
    hashes: Vec<(u64, u64)>,
}

/// How much to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The first [`PREVIEW`] images; ends at one that would end training.
    Preview,
    /// All images, whether they can be used or not.
    Check,
    /// In addition, the sizes of the files' images, and which images are equal.
    Statistics,
}

impl Survey {
    /// Reads the images of `source` on all processors; the result does not depend on their number.
    ///
    /// # Errors
    /// Those of [`Source::read`] that concern more than one image; with [`Extent::Preview`], all that skipping does not
    /// cover.
    pub fn of(source: &dyn Source, extent: Extent) -> Result<Self, DataError> {
        let all = match extent {
            Extent::Preview => source.len().min(PREVIEW),
            Extent::Check | Extent::Statistics => source.len(),
        };
        let chunks: Vec<Range<u64>> =
            (0..all.div_ceil(CHUNK)).map(|chunk| chunk * CHUNK..((chunk + 1) * CHUNK).min(all)).collect();
        let parts = parallel::map(&chunks, |ids| Self::of_range(source, extent, ids.clone()))?;
        let mut whole = parts.into_iter().fold(Survey::default(), Survey::merged);
        whole.duplicates = duplicates(std::mem::take(&mut whole.hashes));
        Ok(whole)
    }

    fn of_range(source: &dyn Source, extent: Extent, ids: Range<u64>) -> Result<Self, DataError> {
        let (shape, depth) = (source.image(), source.depth());
        let mut survey = Survey { channels: vec![(0.0, 0.0); shape.channels], ..Survey::default() };
        let mut image = vec![0; image_bytes(source)];
        for id in ids {
            let label = match source.read(id, &mut image) {
                Ok(label) => label,
                Err(error) => {
                    let skipped = source.skips().is_some() && matches!(error, DataError::Image { .. });
                    // Other images cannot be read either, each perhaps only after many attempts.
                    let lost = match error {
                        DataError::Store { .. } | DataError::Changed { .. } | DataError::Stopped => true,
                        DataError::Vanished { .. } => source.files().is_some(),
                        _ => false,
                    };
                    if lost || !skipped && extent == Extent::Preview {
                        return Err(error);
                    }
                    survey.ends |= !skipped;
                    survey.faults.push(error.fault());
                    continue;
                }
            };
            survey.read += 1;
            label.into_iter().for_each(|label| *survey.labels.entry(label).or_default() += 1);
            survey.values += shape.pixels() as u64;
            let values = of_255(depth, &image);
            for ((sum, squares), plane) in survey.channels.iter_mut().zip(values.chunks_exact(shape.pixels())) {
                *sum += plane.iter().sum::<f64>();
                *squares += plane.iter().map(|value| value * value).sum::<f64>();
            }
            if id < PREVIEW {
                survey.preview.extend_from_slice(&levels(depth, &image));
            }
            if extent == Extent::Statistics {
                let mut hash = Fingerprint::default();
                hash.add(&image);
                survey.hashes.push((hash.value(), id));
                let stored = source.encoded(id)?.and_then(|file| pixels::stored_size(&file.bytes, shape.channels));
                stored.into_iter().for_each(|size| *survey.sizes.entry(size).or_default() += 1);
            }
        }
        Ok(survey)
    }

    /// The survey of these images and of those that follow.
    fn merged(mut self, next: Self) -> Self {
        self.channels.resize(next.channels.len(), (0.0, 0.0));
        for ((sum, squares), (more, more_squares)) in self.channels.iter_mut().zip(next.channels) {
            (*sum, *squares) = (*sum + more, *squares + more_squares);
        }
        next.labels.into_iter().for_each(|(label, count)| *self.labels.entry(label).or_default() += count);
        next.sizes.into_iter().for_each(|(size, count)| *self.sizes.entry(size).or_default() += count);
        self.read += next.read;
        self.values += next.values;
        self.ends |= next.ends;
        self.faults.extend(next.faults);
        self.preview.extend(next.preview);
        self.hashes.extend(next.hashes);
        self
    }

    /// The mean over all channels, of 255.
    pub fn mean_pixel(&self) -> f64 {
        let all: f64 = self.channels.iter().map(|(sum, _)| sum).sum();
        all / (self.values * self.channels.len() as u64).max(1) as f64
    }

    /// Mean and standard deviation of each channel, with values from 0 to 1.
    pub fn moments(&self) -> Vec<(f64, f64)> {
        let n = self.values.max(1) as f64;
        let moments = |(sum, squares): &(f64, f64)| {
            let mean = sum / n;
            (mean / 255.0, (squares / n - mean * mean).max(0.0).sqrt() / 255.0)
        };
        self.channels.iter().map(moments).collect()
    }

    /// The number of images that are equal to an earlier one.
    pub fn repeated(&self) -> usize {
        self.duplicates.iter().map(|group| group.len() - 1).sum()
    }
}

/// Values as a data set stores them, from 0 to 255.
fn of_255(depth: Depth, values: &[u8]) -> Vec<f64> {
    match depth {
        Depth::Byte => values.iter().map(|value| f64::from(*value)).collect(),
        Depth::Float => {
            let floats = values.as_chunks().0.iter();
            floats.map(|value| (f64::from(f32::from_ne_bytes(*value)) + 1.0) * 127.5).collect()
        }
    }
}

/// The ids with equal hashes, in groups of at least two, in the order of their first ids.
fn duplicates(mut hashes: Vec<(u64, u64)>) -> Vec<Vec<u64>> {
    hashes.sort_unstable();
    let groups = hashes.chunk_by(|one, other| one.0 == other.0).filter(|group| group.len() > 1);
    let mut groups: Vec<Vec<u64>> = groups.map(|group| group.iter().map(|(_, id)| *id).collect()).collect();
    groups.sort_unstable();
    groups
}
