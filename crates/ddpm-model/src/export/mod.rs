//! Exports a model: as a directory that diffusers loads, or as plain tensors with a description.

mod card;
mod contents;
mod diffusers;
mod files;
mod folder;
mod plain;
mod recipe;
mod request;
mod scheduler;
mod unet;
mod usage;
mod variants;

pub use contents::Format;
pub use folder::ExportFolder;
pub use request::{Export, ExportOptions};
