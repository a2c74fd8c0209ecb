//! Image data sets as images of one shape, the order in which a run sees them, and the loader that decodes ahead.
//!
//! A [`Source`] maps an id in `0..len` to one image and its class. An [`Order`] maps a position in the run to an id. A
//! [`Loader`] combines the two for one rank's slice of every global batch. All are pure functions of their settings, so
//! the images of a step depend neither on the number of ranks nor on restarts.
//!
//! ```
//! use ddpm_data::{Alpha, DataSpec, Fit, ImageShape, Loader, LoaderConfig, OnCorrupt, Order, SourceKind, open};
//!
//! # fn main() -> Result<(), ddpm_data::DataError> {
//! let source = open(&DataSpec {
//!     kind: SourceKind::Synthetic { count: 1000, seed: 0 }, // Or Idx { .. }, Folder { .. }, Shards(ShardSpec { .. }).
//!     image: ImageShape::square(1, 16),
//!     crop: None,
//!     fit: Fit::Crop,
//!     alpha: Alpha::BLACK,
//!     range: None,
//!     jpeg_shrink: false,
//!     max_pixels: 1 << 20,
//!     on_corrupt: OnCorrupt::Error,
//! })?;
//! let order = Order::new(source.len(), 42);
//! let config = LoaderConfig {
//!     global_batch: 64,
//!     slice: 0..32, // This is rank 0 of 2.
//!     start_step: 0,
//!     workers: 2,
//!     prefetch: 4,
//!     flip: false,
//!     flip_seed: 0,
//! };
//! let loader = Loader::new(source, order.clone(), config, ())?;
//! let batch = loader.next()?;
//! assert_eq!((batch.step, batch.images.len(), batch.labels.len()), (0, 32 * 16 * 16, 32));
//! assert_eq!(batch.ids[5], order.id_at(5));
//! loader.recycle(batch);
//! # Ok(())
//! # }
//! ```

mod announce;
mod batch;
mod celeba;
mod classes;
mod cursor;
mod error;
mod findings;
mod folder;
mod glyphs;
mod guard;
mod gzip;
mod hash;
mod idx;
mod interrupt;
mod listing;
mod loader;
mod open;
mod order;
mod pack;
mod parallel;
mod permutation;
mod pixels;
mod ranges;
mod remote;
mod replace;
mod report;
mod shards;
mod skip;
mod source;
mod survey;
mod synthetic;
mod unread;
mod user_caches;
mod windows;

pub use batch::{Batch, Prepare};
pub use classes::{Class, class_phrases};
pub use ddpm_spec::{
    Alpha, DataSpec, Depth, Fit, FolderLabels, IdxLabels, ImageShape, OnCorrupt, ShardFormat, ShardLabels, ShardSpec,
    SourceKind, Split,
};
pub use error::DataError;
pub use findings::{Findings, IgnoredFiles, some_of};
pub use folder::{class_folders, first_shape};
pub use guard::is_guarded;
pub use interrupt::heeding;
pub use listing::images_below;
pub use loader::{Loader, LoaderConfig};
pub use open::{levels, open, preview};
pub use order::Order;
pub use pack::{Manifest, PackFormat, PackedShard, Packing, pack, verify};
pub use report::{info, statistics};
pub use skip::Skips;
pub use source::{Encoded, Source, Traffic, image_bytes};
pub use survey::{Extent, PREVIEW, Survey};
pub use user_caches::user_caches;
