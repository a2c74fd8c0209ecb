//! Comparing sets of images by their features, all ranks together: each rank reads or draws its share.

mod cache;
mod distances;
mod extractor;
mod image_set;
mod npz;
mod reference;

pub use distances::{PrecisionRecall, kernel_distance, precision_recall};
pub use extractor::Extractor;
pub use image_set::ImageSet;
pub use npz::write as write_npz;
pub use reference::{Origin, Reference, Statistics};
