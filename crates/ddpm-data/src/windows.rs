//! An order that suits files of many images: the files in keyed order, and the images in keyed order within windows of
//! a few files.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::hash::keyed;
use crate::permutation::Permutation;

/// The stream of [`keyed`] for the order of the files, and for the orders within windows.
const FILES: u64 = 4;
const WITHIN: u64 = 5;

/// The orders of the images of some files, one per key: a function of the key and the position, like a
/// [`Permutation`]. What the struct remembers only saves computing it again.
#[derive(Clone)]
pub(crate) struct Windows {
    /// The id of the first image of each file, and the number of all images at the end.
    starts: Arc<[u64]>,
    /// How many files a window has.
    files: usize,
    /// The sequences of files that were used last: of two epochs, as threads near the end of one are in both.
    last: Arc<Mutex<Vec<Arc<Sequence>>>>,
}

/// The files as one key arranges them.
struct Sequence {
    key: u64,
    /// The number of each file.
    files: Vec<usize>,
    /// How many images precede each file, and the number of all images at the end.
    before: Vec<u64>,
}

impl Windows {
    /// Windows of `files` files (at least 1) whose images begin at `starts`, which ends with the number of all images.
    pub(crate) fn new(starts: Vec<u64>, files: u64) -> Self {
        let files = usize::try_from(files).unwrap_or(usize::MAX).max(1);
        Windows { starts: starts.into(), files, last: Arc::default() }
    }

    /// The number of images.
    pub(crate) fn images(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// The image at `index` (below the number of all images) in the order of `key`.
    pub(crate) fn apply(&self, key: u64, index: u64) -> u64 {
        let sequence = self.sequence(key);
        let window = sequence.holding(index) / self.files;
        let first = window * self.files;
        let end = first.saturating_add(self.files).min(sequence.files.len());
        let (begin, size) = (sequence.before[first], sequence.before[end] - sequence.before[first]);
        let key = keyed(key, WITHIN, window as u64);
        let drawn = begin + Permutation::of(size).apply(key, index - begin);
        let place = sequence.holding(drawn);
        self.starts[sequence.files[place]] + (drawn - sequence.before[place])
    }

    fn sequence(&self, key: u64) -> Arc<Sequence> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sequence) = last.iter().find(|sequence| sequence.key == key) {
            return Arc::clone(sequence);
        }
        let sequence = Arc::new(Sequence::new(&self.starts, key));
        last.truncate(1);
        last.insert(0, Arc::clone(&sequence));
        sequence
    }
}

impl Sequence {
    fn new(starts: &[u64], key: u64) -> Self {
        let count = starts.len().saturating_sub(1);
        let (permutation, key_of_files) = (Permutation::of((count as u64).max(1)), keyed(key, FILES, 0));
        let files: Vec<usize> =
            (0..count as u64).map(|place| permutation.apply(key_of_files, place) as usize).collect();
        let mut before = Vec::with_capacity(count + 1);
        before.push(0);
        for file in &files {
            before.push(before[before.len() - 1] + (starts[file + 1] - starts[*file]));
        }
        Sequence { key, files, before }
    }

    /// The place in the sequence of the file that holds the image at `index`; files without images hold none.
    fn holding(&self, index: u64) -> usize {
        self.before.partition_point(|before| *before <= index) - 1
    }
}

/// Two are equal if they give the same orders.
impl PartialEq for Windows {
    fn eq(&self, other: &Self) -> bool {
        (&self.starts, self.files) == (&other.starts, other.files)
    }
}

impl Eq for Windows {}

impl fmt::Debug for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Windows").field("starts", &self.starts).field("files", &self.files).finish()
    }
}
