//! The configuration of a run: TOML options merged, checked and resolved into validated settings.
//!
//! ```
//! use ddpm_config::{ScheduleKind, Settings};
//!
//! let settings = Settings::load("mnist", &["train.lr=1e-4".into(), "diffusion.schedule=cosine".into()])?;
//! assert_eq!(settings.train.lr, 1e-4);
//! assert_eq!(settings.diffusion.schedule, ScheduleKind::Cosine);
//! assert_eq!(settings.run.dir, "runs/mnist");
//! settings.check_world(2)?;
//! # Ok::<(), ddpm_config::Error>(())
//! ```

mod address;
mod de;
mod diff;
mod error;
mod imported;
mod keys;
mod merge;
mod presets;
mod settings;
mod specs;
mod validate;

pub use address::{Misspelt, check_address, check_path};
pub use ddpm_spec::{
    Backend, Convolutions, CudaGraphs, DataKind, Device, Features, Labels, LossKind, LrShape, ModelKind, OnCorrupt,
    OnFailure, Precision, Prediction, SamplerKind, ScheduleKind, Shuffle, TimestepSampling, Variance, WeightingKind,
    WhenBusy,
};
pub use diff::{Difference, DifferenceKind};
pub use error::Error;
pub use imported::ModelDescription;
pub use keys::check_key;
pub use presets::{PRESETS, Preset};
pub use settings::{
    CheckpointSettings, CommSettings, DataSettings, DiffusionSettings, EmaSettings, ModelSettings, MonitorSettings,
    RunSettings, Settings, TrainSettings,
};
