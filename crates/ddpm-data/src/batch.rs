//! A batch as the loader delivers it, and what its threads add to the images.

use std::ops::Range;

/// One rank's slice of one global batch, in the order of its slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch<T = ()> {
    /// The step it is for.
    pub step: u64,
    /// Position in the run of the first image; the others follow consecutively.
    pub first_position: u64,
    /// `[n, C, H, W]`, each value of the source's [`depth`](crate::Source::depth).
    pub images: Vec<u8>,
    /// `[n]`: the class, or -1 if there is none.
    pub labels: Vec<i64>,
    /// `[n]`: the sample ids; that of the replacement if a corrupt image was skipped.
    pub ids: Vec<u64>,
    /// How many of the images replace a corrupt one.
    pub skipped: u64,
    /// What [`Prepare`] added.
    pub prepared: T,
}

impl<T> Batch<T> {
    /// The position in the run of each image.
    pub fn positions(&self) -> Range<u64> {
        self.first_position..self.first_position + self.labels.len() as u64
    }
}

/// The class as it is stored in a tensor of labels.
pub(crate) fn label(class: Option<u32>) -> i64 {
    class.map_or(-1, i64::from)
}

/// What the loader's threads do with each batch after decoding it.
pub trait Prepare: Send + Sync + 'static {
    /// The result, which travels with the batch. Its memory is reused when the batch is recycled.
    type Prepared: Default + Send;

    /// Sets `batch.prepared`; whatever it holds is from an earlier batch.
    ///
    /// # Errors
    /// Passed on by the loader as [`DataError::Prepare`](crate::DataError::Prepare).
    fn prepare(&self, batch: &mut Batch<Self::Prepared>) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// Nothing to prepare.
impl Prepare for () {
    type Prepared = ();

    fn prepare(&self, _: &mut Batch) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(())
    }
}
