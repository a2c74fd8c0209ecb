//! The only C++ of the project: functions of libtorch that tch does not expose.
//!
//! ```
//! use tch::{Device, Kind, Tensor};
//!
//! # fn main() -> Result<(), tch::TchError> {
//! // Two parameters whose gradients are views of one flat buffer, filled by backward.
//! let grads = Tensor::zeros([4], (Kind::Float, Device::Cpu));
//! let sinks = tch_ext::GradientSinks::new(&[grads.narrow(0, 0, 3), grads.narrow(0, 3, 1)])?;
//! let weight = sinks.trained(0, &Tensor::from_slice(&[1.0f32, 2.0, 3.0]))?;
//! let bias = sinks.trained(1, &Tensor::from_slice(&[0.5f32]))?;
//! (weight.square().sum(Kind::Float) + &bias).backward();
//! let mut buffer = grads;
//! tch_ext::with_f32_mut(&mut buffer, |values| assert_eq!(values, [2.0, 4.0, 6.0, 1.0]))?;
//! # Ok(())
//! # }
//! ```
//!
//! Each function borrows its tensors only for the call and converts C++ exceptions to
//! [`TchError::Torch`](tch::TchError::Torch).
#![allow(unsafe_code)]

mod adamw;
mod attempt;
mod channels;
mod checkpoint;
mod convolution;
mod failure;
mod gpu_kernels;
mod gpus;
mod gradient_sinks;
mod graph;
mod group_norm;
mod masked_scale;
mod memory_watch;
mod message;
mod operations;
mod profiler;
mod release;
mod slice;
mod snapshot;

pub use adamw::{AdamWBuffers, AdamWOptions, fused_adamw};
pub use attempt::{attempt, is_attempt};
pub use channels::channels_last;
pub use checkpoint::checkpoint;
pub use convolution::{
    allow_winograd, multiplies_bf16, processor, winograd, winograd_planes, winograd_planes_for, winograd_with_planes,
};
pub use failure::TorchFailure;
pub use gpu_kernels::{check_gpu_kernels, compile_gpu_kernels, forget_gpu_kernels, norm_of_the_gpu};
pub use gpus::{
    GpuMemory, Gpus, NoGpu, compute_stream, libtorch_folder, load_cuda_backend, make_current, set_deterministic,
    staging, with_f32_on_gpu,
};
pub use gradient_sinks::{GradientSinks, Grouped};
pub use graph::Graph;
pub use group_norm::{Activation, NormOnCpu, Normed, PerChannel, group_norm, with_group_norm};
pub use masked_scale::masked_scale;
pub use memory_watch::MemoryWatch;
pub use operations::{Operations, count_operations};
pub use profiler::{Cost, CostKind, Profiler, in_range};
pub use slice::{Lent, with_f32_mut, with_f32_slices, with_slice_mut};
pub use snapshot::Snapshot;
