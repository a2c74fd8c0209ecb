//! The only C++ of the project: functions of libtorch that tch does not expose.
//!
//! Each function borrows its tensors for the call only and turns a C++ exception into
//! [`TchError::Torch`](tch::TchError::Torch).
#![allow(unsafe_code)]

mod adamw;
mod channels;
mod checkpoint;
mod convolution;
mod failure;
mod gpus;
mod gradient;
mod group_norm;
mod hooks;
mod memory;
mod message;
mod profiler;
mod slice;
mod trouble;

pub use adamw::{AdamWBuffers, AdamWOptions, fused_adamw};
pub use channels::channels_last;
pub use checkpoint::checkpoint;
pub use convolution::{allow_winograd, multiplies_bf16, processor, winograd, winograd_applies};
pub use failure::TorchFailure;
pub use gpus::{Gpus, NoGpu, load_cuda_backend, make_current, set_deterministic, with_f32_on_gpu};
pub use gradient::set_grad;
pub use group_norm::{Activation, Normed, PerChannel, as_on_gpus, group_norm};
pub use hooks::GradHooks;
pub use memory_watch::MemoryWatch;
pub use profiler::{Cost, CostKind, Profiler, in_range};
pub use slice::with_f32_mut;
pub use trouble::Trouble;
