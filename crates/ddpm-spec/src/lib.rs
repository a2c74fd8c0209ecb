//! The vocabulary of a diffusion run: every choice that can be made, defined and validated once.
//!
//! The other crates take their choices from here, so that a word of a configuration file, an argument of a constructor
//! and a field of an error mean the same. There are two kinds of type:
//!
//! - *words*, enums without data that files spell in `snake_case` ([`LossKind`], [`ScheduleKind`], [`Precision`]);
//! - *specifications*, which hold all that is needed to build something ([`UNetSpec`], [`DiffusionSpec`], [`DataSpec`],
//!   [`BetaSchedule`]). Each has `validate`, the only check of what can be built. Its errors give the path of the field
//!   at fault, as a [`Naming`] spells it.
//!
//! ```
//! use ddpm_spec::{DiffusionSpec, Loss, Naming, Prediction, Variance, Weighting};
//!
//! let spec = DiffusionSpec {
//!     prediction: Prediction::Eps,
//!     variance: Variance::FixedSmall,
//!     loss: Loss::Hybrid { lambda: 0.001 },
//!     weighting: Weighting::None,
//! };
//! // The hybrid loss trains the variance, and this one is fixed.
//! let error = spec.validate(Naming(|field| format!("diffusion.{field}"))).unwrap_err();
//! assert_eq!(error.path, "diffusion.loss");
//! assert!(DiffusionSpec { variance: Variance::LearnedRange, ..spec }.validate(Naming::PLAIN).is_ok());
//! assert_eq!(Variance::LearnedRange.model_channels(3), 6);
//! ```

mod architecture;
mod arithmetic;
mod attention;
mod backend;
pub mod check;
mod classifier;
mod cuda_graphs;
mod data;
mod device;
mod diffusion;
mod error;
mod features;
mod fitting;
mod image;
mod image_size;
mod labels;
mod loss;
mod lr;
mod prediction;
mod sampler;
mod saving;
mod schedule;
mod small;
mod spacing;
mod timesteps;
mod unet;
mod variance;
mod weighting;

pub use architecture::{Architecture, ModelKind};
pub use arithmetic::{Convolutions, Precision};
pub use attention::{Heads, MidAttention, MidAttentionKind};
pub use backend::Backend;
pub use classifier::ClassifierSpec;
pub use cuda_graphs::CudaGraphs;
pub use data::{
    DataKind, DataSpec, Depth, FolderLabels, IdxLabels, OnCorrupt, ShardFormat, ShardLabels, ShardSpec, Shuffle,
    SourceKind, Split,
};
pub use device::Device;
pub use diffusion::DiffusionSpec;
pub use error::{Naming, SpecError};
pub use features::Features;
pub use fitting::{Alpha, Fit};
pub use image::ImageShape;
pub use image_size::ImageSize;
pub use labels::Labels;
pub use loss::{Loss, LossKind};
pub use lr::LrShape;
pub use prediction::Prediction;
pub use sampler::{Ddim, Direction, NoiseInterval, Sampler, SamplerKind};
pub use saving::{OnFailure, WhenBusy};
pub use schedule::{BetaSchedule, ScheduleKind};
pub use small::SmallUNetSpec;
pub use spacing::Spacing;
pub use timesteps::TimestepSampling;
pub use unet::UNetSpec;
pub use variance::Variance;
pub use weighting::{Weighting, WeightingKind};
