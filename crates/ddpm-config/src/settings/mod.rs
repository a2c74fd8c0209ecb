//! The resolved settings of a run: one struct per section, one field per key, with meaning, unit and default.
//!
//! These structs are the only list of keys there is. The parser, the suggestions for misspelt names, `config.toml`
//! and the comparison on resume are all derived from them.

mod data;
mod diffusion;
mod model;
mod optional;
mod run;
mod services;
mod train;

pub use data::DataSettings;
pub use diffusion::DiffusionSettings;
pub use model::ModelSettings;
pub(crate) use model::{default_attention, default_channels};
pub use run::{RunSettings, Settings};
pub use services::{CheckpointSettings, CommSettings, MonitorSettings};
pub use train::{EmaSettings, TrainSettings};
