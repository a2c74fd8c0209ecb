//! Safe bindings to NCCL, NVIDIA's collectives between GPUs, to the few functions of the CUDA runtime that it needs, and to
//! the sensors of NVML.
//!
//! Nothing is linked. [`Nccl::load`] and [`Cuda::load`] find `libnccl.so.2` and `libcudart.so` at run time, so that one
//! binary runs on machines with and without them; if one is missing, the [`Error`] names it. Each library is searched
//! for
//!
//! 1. only at the path in the environment variable [`NCCL_VARIABLE`], [`CUDART_VARIABLE`] or [`NVML_VARIABLE`],
//!    if it is set;
//! 2. among those that the process has already loaded: libtorch's own;
//! 3. in the search path of the system's loader (`LD_LIBRARY_PATH`, `ldconfig`).
//!
//! ```no_run
//! # fn main() -> Result<(), nccl_rs::Error> {
//! use nccl_rs::{Communicator, Cuda, DType, DeviceMemory, Nccl, Reduction, Stream};
//!
//! let (nccl, cuda) = (Nccl::load()?, Cuda::load()?);
//! let id = nccl.unique_id()?; // On rank 0, which sends it to the others.
//! let comm = Communicator::new(nccl, cuda, 0, 0, 1, &id)?;
//! let compute = Stream::new(cuda)?;
//! let mut memory = DeviceMemory::new(cuda, 8)?;
//! memory.upload(&[1.0f32, 2.0].map(f32::to_ne_bytes).concat(), compute.handle())?;
//! let pending = comm.all_reduce(&mut [memory.slice(DType::F32, compute.handle())], Reduction::Mean)?;
//! // Work on other memory may be enqueued on `compute` here; it overlaps with the all-reduce.
//! comm.make_wait(compute.handle())?; // Later work on `compute` waits for the result.
//! println!("done: {}", pending.is_done()?); // For monitoring only.
//! comm.finish()
//! # }
//! ```
//!
//! # Order on the GPU
//!
//! A collective returns once it is enqueued. It runs on the communicator's own stream, after all work that was enqueued
//! on the streams of its slices before the call. [`Communicator::make_wait`] makes later work on a stream wait for the
//! result; until then, the stream can compute the next gradients while the previous ones are averaged. The host never
//! waits.
//!
//! # Tests without a GPU
//!
//! The tests run this crate against a fake library with NCCL's interface (`tests/fake`), and load the real NCCL for its
//! version and a unique id, which do not need a GPU. See docs/gpu.md.
#![allow(unsafe_code)] // Calls through function pointers, each with its reason to be sound.

mod buffer;
mod capture;
mod communicator;
mod cuda;
mod device_memory;
mod error;
mod library;
mod nccl;
mod nvml;
mod stream;
mod version;

pub use buffer::{DType, DeviceSlice, Reduction};
pub use communicator::{Communicator, Pending};
pub use cuda::{CUDART_VARIABLE, Cuda};
pub use device_memory::DeviceMemory;
pub use error::Error;
pub use nccl::{Nccl, UniqueId};
pub use nvml::{NVML_VARIABLE, Sensors};
pub use stream::{Event, Stream, StreamHandle};
pub use version::{MINIMUM, NCCL_VARIABLE, Version};
