//! U-Nets on a flat parameter arena, AdamW, learning-rate schedules and EMA.
//!
//! A network is a value without tensors: its layers hold [`Param`] handles into a [`Layout`]. The numbers live in
//! [`Weights`], one flat buffer with a view per parameter, so the same network runs on the raw weights, on any EMA of
//! them, or on weights read from a file, and what the optimizer, the collectives and the checkpoints see is one buffer.

mod arena;
mod diffusers;
mod dropout;
mod ema;
mod error;
mod inputs;
mod layers;
mod lr;
mod network;
mod noise_scale;
mod optim;
mod small;
mod time;
mod unet;

pub use arena::{Gradients, Init, Layout, LayoutEntry, Param, Weights};
pub use ddpm_spec::{Architecture, ClassifierSpec, ImageShape, MidAttention, SmallUNetSpec, UNetSpec};
pub use diffusers::SavedUNet;
pub use dropout::DropoutKeys;
pub use ema::Ema;
pub use error::NnError;
pub use inputs::Inputs;
pub use lr::LrSchedule;
pub use network::Network;
pub use noise_scale::GradientNoise;
pub use optim::{AdamW, clip};
pub use small::SmallUNet;
pub use time::sinusoidal_embedding;
pub use unet::{Classifier, UNet};
