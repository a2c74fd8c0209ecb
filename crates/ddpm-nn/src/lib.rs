//! U-Nets on a flat parameter arena, AdamW, learning-rate schedules and EMA.
//!
//! A network is a value without tensors: its layers hold [`Param`] handles into a [`Layout`]. The numbers live in
//! [`Weights`], one flat buffer with a view per parameter, so the same network runs on the raw weights, on any EMA of
//! them, or on weights read from a file, and what the optimizer, the collectives and the checkpoints see is one buffer.
//!
//! [`Network::new`] builds the networks of [`Architecture`]. A network of your own is a [`Module`] of these layers:
//!
//! ```
//! use ddpm_nn::{
//!     AdamW, Conv2d, Gradients, ImageShape, Inputs, Layout, Linear, Module, Network, Scope, Start, Weights, clip,
//!     sinusoidal_embedding,
//! };
//! use tch::{Device, Kind, TchError, Tensor};
//!
//! const WIDTH: i64 = 8;
//!
//! /// Two convolutions, with the time added in between.
//! #[derive(Debug)]
//! struct Shallow {
//!     first: Conv2d,
//!     time: Linear,
//!     last: Conv2d,
//! }
//!
//! impl Shallow {
//!     fn new(layout: &mut Layout) -> Self {
//!         let mut root = Scope::root(layout);
//!         Self {
//!             first: Conv2d::new(&mut root.sub("first"), 1, WIDTH, 3, Start::Default),
//!             time: Linear::new(&mut root.sub("time"), WIDTH, WIDTH, Start::Default),
//!             last: Conv2d::new(&mut root.sub("last"), WIDTH, 1, 3, Start::Zero),
//!         }
//!     }
//! }
//!
//! impl Module for Shallow {
//!     fn image(&self) -> ImageShape {
//!         ImageShape::square(1, 8)
//!     }
//!
//!     fn forward(&self, w: &Weights, inputs: &Inputs, _: &[bool]) -> Result<Tensor, TchError> {
//!         let time = sinusoidal_embedding(inputs.t, WIDTH, true, 0.0)?;
//!         let shift = self.time.forward(w, &time)?.f_unsqueeze(-1)?.f_unsqueeze(-1)?;
//!         self.last.forward(w, &self.first.forward(w, inputs.x)?.f_add(&shift)?.f_silu()?)
//!     }
//! }
//!
//! let mut layout = Layout::default();
//! let module = Shallow::new(&mut layout);
//! let network = Network::of(layout, Box::new(module));
//! assert_eq!(network.layout().entries()[0].name, "first.weight");
//!
//! // One step of training towards an output of 1.
//! let mut weights = Weights::initialise(network.layout(), 0, Device::Cpu)?;
//! let mut gradients = Gradients::attach(network.layout(), &mut weights)?;
//! let mut optimizer = AdamW::new(weights.flat(), [0.9, 0.999], 0.0, 1e-8)?;
//! let x = Tensor::ones([2, 1, 8, 8], (Kind::Float, Device::Cpu));
//! let t = Tensor::from_slice(&[0i64, 999]);
//! let loss = || -> Result<Tensor, TchError> {
//!     let y = network.forward(&weights, &Inputs { x: &x, t: &t, labels: None, dropout: None })?;
//!     Ok((y - 1.0).square().mean(Kind::Float))
//! };
//! let before = loss()?;
//! before.backward();
//! let norm = gradients.flat().norm().double_value(&[]);
//! let mut flat = gradients.flat().shallow_clone();
//! clip(&mut flat, norm, 1.0)?;
//! tch::no_grad(|| optimizer.step(weights.flat(), &flat, 0.01))?;
//! gradients.clear()?;
//! assert!(loss()?.double_value(&[]) < before.double_value(&[]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arena;
mod diffusers;
mod dropout;
mod ema;
mod error;
mod inputs;
mod layers;
mod lr;
mod module;
mod network;
mod noise_scale;
mod openai;
mod optim;
mod power_average;
mod prepared;
mod small;
mod stored;
mod time;
mod unet;

pub use arena::{Gradients, Init, Layout, LayoutEntry, Param, Weights};
pub use ddpm_spec::{Architecture, ClassifierSpec, Heads, ImageShape, MidAttention, SmallUNetSpec, UNetSpec};
pub use diffusers::SavedUNet;
pub use dropout::DropoutKeys;
pub use ema::{Averaging, Ema};
pub use error::NnError;
pub use inputs::Inputs;
pub use layers::{Conv2d, Embedding, GroupNorm, Linear, Scope, Start};
pub use lr::LrSchedule;
pub use module::Module;
pub use network::Network;
pub use noise_scale::GradientNoise;
pub use openai::{AttentionOrder, OpenAiUNet};
pub use optim::{AdamW, Moments, clip};
pub use power_average::{Profile, combination, exponent_of};
pub use small::SmallUNet;
pub use tch_ext::Activation;
pub use time::sinusoidal_embedding;
pub use unet::{Classifier, UNet};
