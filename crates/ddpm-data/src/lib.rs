//! Image data sets as square u8 images, the order a run sees them in, and the loader that decodes ahead.
//!
//! A [`Source`] maps an id in `0..len` to one image and its class. An [`Order`] maps a position in the run to an id,
//! a [`Loader`] joins the two for one rank's slice of every global batch. Each is a pure function of its settings, so
//! what a step trains on depends neither on the number of ranks nor on how often the run was restarted.

mod celeba;
mod classes;
mod error;
mod findings;
mod folder;
mod glyphs;
mod gzip;
mod hash;
mod idx;
mod listing;
mod loader;
mod open;
mod order;
mod pixels;
mod replace;
mod skip;
mod source;
mod synthetic;

pub use classes::{Class, class_phrases};
pub use ddpm_spec::{DataSpec, FolderLabels, IdxLabels, ImageShape, OnCorrupt, SourceKind, Split};
pub use error::DataError;
pub use findings::{Findings, PassedOver, some_of};
pub use folder::class_folders;
pub use loader::{Batch, Loader, LoaderConfig};
pub use open::{open, preview};
pub use order::Order;
pub use skip::Skips;
pub use source::Source;
