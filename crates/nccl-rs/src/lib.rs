//! Safe bindings to NCCL, NVIDIA's collectives between GPUs, and to the few functions of the CUDA runtime beside them.
//!
//! Nothing is linked. [`Nccl::load`] and [`Cuda::load`] find `libnccl.so.2` and `libcudart.so` when a GPU is asked for,
//! so that one binary runs on machines with and without them, and what is missing is an [`Error`] that names it. Each
//! library is looked for
//!
//! 1. at the path in the environment, [`NCCL_VARIABLE`] or [`CUDART_VARIABLE`], and then nowhere else;
//! 2. among those that the process has loaded: libtorch's own;
//! 3. where the system's loader looks (`LD_LIBRARY_PATH`, `ldconfig`).
//!
//! ```no_run
//! # fn main() -> Result<(), nccl_rs::Error> {
//! use nccl_rs::{Communicator, Cuda, DType, DeviceMemory, Nccl, Reduction, Stream};
//!
//! let (nccl, cuda) = (Nccl::load()?, Cuda::load()?);
//! let id = nccl.unique_id()?; // on rank 0, which sends it to the others
//! let comm = Communicator::new(nccl, cuda, 0, 0, 1, &id)?;
//! let compute = Stream::new(cuda)?;
//! let mut memory = DeviceMemory::new(cuda, 8)?;
//! memory.upload(&[1.0f32, 2.0].map(f32::to_ne_bytes).concat(), compute.handle())?;
//! let pending = comm.all_reduce(&mut [memory.slice(DType::F32, compute.handle())], Reduction::Mean)?;
//! let done = pending.is_done()?; // need not be asked: `compute` continues when it is
//! # let _ = done;
//! comm.finish()
//! # }
//! ```
//!
//! # Order on the GPU
//!
//! A collective returns once it is enqueued. It runs on the communicator's own stream, after all that was enqueued on
//! its slices' streams before the call, and all that is enqueued on those streams afterwards waits for it. The host
//! waits for nothing. So that a stream can compute the next gradients while the last ones are averaged,
//! [`Communicator::all_reduce_aside`] leaves the second half to [`Communicator::hold`].
//!
//! # Never run on a GPU
//!
//! The tests drive this crate against a library of their own with NCCL's interface (`tests/fake`), and load the real
//! NCCL for its version and a unique id, which take no GPU. See docs/gpu.md.
#![allow(unsafe_code)] // Calls through function pointers; each says why it is sound.

mod buffer;
mod communicator;
mod cuda;
mod device_memory;
mod error;
mod library;
mod nccl;
mod stream;
mod version;

pub use buffer::{DType, DeviceSlice, Reduction};
pub use communicator::{Communicator, Pending};
pub use cuda::{CUDART_VARIABLE, Cuda};
pub use device_memory::DeviceMemory;
pub use error::Error;
pub use nccl::{Nccl, UniqueId};
pub use stream::{Event, Stream, StreamHandle};
pub use version::{MINIMUM, NCCL_VARIABLE, Version};
