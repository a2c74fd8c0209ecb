//! Ranks: the MPI world, the collectives that training needs, and how a run ends when a rank fails.
//!
//! A *rank* is one process of the run, numbered 0 to `size - 1`. [`World::init`] joins the run: under a launcher
//! (mpirun, srun) all ranks form one MPI world; otherwise the process is a world with a single rank, and MPI is not
//! initialized. [`World::collective`] returns the operations in which all ranks take part; callers need not know which
//! kind of world they are in.
//!
//! ```
//! use ddpm_comm::{Reduce, World, abort, agree, install_panic_hook, set_step};
//!
//! let world = World::init().unwrap_or_else(|error| abort(2, &error.to_string()));
//! install_panic_hook();
//! world.watch(std::time::Duration::from_secs(600));
//! let comm = world.collective();
//! let mut grads = vec![world.rank() as f32; 1000];
//! for step in 0..10 {
//!     set_step(step);
//!     comm.all_reduce(&mut grads, Reduce::Mean);
//!     let stop_requested = false;
//!     if agree::any(comm.as_ref(), stop_requested) {
//!         world.finish(75)
//!     }
//! }
//! assert!(grads.iter().all(|&grad| grad == (world.size() - 1) as f32 / 2.0)); // the mean of the ranks' numbers
//! world.finish(0)
//! ```
//!
//! Gradients in GPU memory are reduced by NCCL: [`World::select`] determines whether a run can use it, and returns a
//! collective that reduces each [`Buffer`] in place. Everything else (agreements, plans, metrics) uses MPI.
//!
//! # Invariants
//!
//! - Every rank calls every collective in the same order, with the same lengths, reduction and root; only the
//!   gathers, and [`agree`], which uses them, accept different lengths. MPI does not check this. Collectives may be
//!   called from any thread: within a rank they exclude each other, but two threads that call them without
//!   synchronization violate the order. That includes the thread of an [`Averager`]: between its `begin` and
//!   `finish`, no rank calls another collective.
//! - A rank that cannot continue passes its error to the next [`agree::unanimous`], so that all ranks leave together;
//!   outside of an agreement it calls [`abort`]. It never just exits: its peers would wait for it. A [`World`]
//!   dropped without [`World::finish`] therefore ends the run.
//! - The result of an all-reduce has the same bits on every rank, and on every repetition with the same world size
//!   and length. A NaN on one rank is a NaN on all.
//! - MPI errors are fatal: a collective that returns has succeeded. NCCL errors are made fatal: they abort the run
//!   when they are detected, and so does an operation on the GPU that exceeds the timeout of [`World::watch`].
//! - [`World::finish`] must be the last thing a rank does: once a rank has exited with a code other than 0, mpirun
//!   kills the ranks that have not.
//!
//! # How a run ends
//!
//! | case | call | effect |
//! |---|---|---|
//! | all ranks agree to end | [`World::finish`] | finalizes MPI, exits with the code |
//! | this rank has an error | [`abort`] | prints it once with rank and step, ends all ranks |
//! | this rank panicked | [`install_panic_hook`] | the same, with code 101 |
//! | a collective takes too long | [`World::watch`] | the same, with code 1 |
//! | this rank was killed | (mpirun) | another rank of its machine reports it ([`World::watch`]), and mpirun ends all ranks within 3 seconds |
//! | mpirun was killed | (Open MPI) | every rank exits by itself |
#![allow(unsafe_code)] // An MPI call that rsmpi lacks, and `_exit`.

mod abort;
pub mod agree;
mod average;
mod board;
mod collective;
mod error;
mod links;
mod mpi;
mod nccl;
mod partition;
mod plain;
mod select;
mod solo;
mod watch;
mod world;

pub use abort::{abort, current_step, exit_now, install_panic_hook, set_step};
pub use agree::Agreed;
pub use average::{Averager, cut_into_buckets};
pub use collective::{Bucket, Buffer, Collective, Reduce};
pub use error::CommError;
pub use links::Link;
pub use nccl_rs::{DType, DeviceSlice, StreamHandle};
pub use partition::partition;
pub use select::{Memory, Selected, Transport, Wanted};
pub use world::{World, is_rank};
