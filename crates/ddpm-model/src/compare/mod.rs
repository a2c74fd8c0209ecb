//! Comparing sets of images by their features, all ranks together: each rank reads or draws its share.

mod cache;
mod comparison;
mod distances;
mod evaluated;
mod extractor;
mod image_set;
mod npy;
mod npz;
mod reference;

pub use comparison::{Against, Comparison};
pub use distances::PrecisionRecall;
pub use evaluated::{DrawOptions, Drawing, Evaluated};
pub use extractor::{Extractor, MOST_FEATURES};
pub use image_set::ImageSet;
pub use reference::{Origin, Reference, Statistics};
