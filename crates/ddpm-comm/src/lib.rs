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
//!     let asked_to_stop = false;
//!     if agree::any(comm.as_ref(), asked_to_stop) {
//!         world.finish(75)
//!     }
//! }
//! assert!(grads.iter().all(|&grad| grad == (world.size() - 1) as f32 / 2.0)); // the mean of the ranks' numbers
//! world.finish(0)
//! ```
//!
//! Gradients in the memory of GPUs go over NCCL: [`World::select`] says whether a run has it, and returns a collective
//! that reduces each [`Buffer`] where it is. All else (agreements, plans, metrics) stays on MPI.
//!
//! # Invariants
//!
//! - Every rank reaches every collective in the same order, with the same lengths, reduction and
//!   root; only the gatherings, and [`agree`] over them, take what differs in length.
//!   MPI does not check this. Collectives may be called from any thread, one at a time: they wait
//!   for each other within a rank, but two threads that call them unordered break the first rule. That goes for the
//!   thread of an [`Averager`] too: between its `begin` and `finish`, no rank calls another collective.
//! - A rank that cannot go on says so at the next [`agree::unanimous`], so that all leave
//!   together; where none is near, it calls [`abort`]. It never just leaves: its peers would wait
//!   for it. A [`World`] dropped without [`World::finish`] therefore ends the run.
//! - The result of an all-reduce has the same bits on every rank, and on every repetition with the
//!   same world size and length. A NaN on one rank is a NaN on all.
//! - MPI's errors stay fatal: a collective that returns has succeeded. NCCL's are made so: they abort the run, when they
//!   show themselves, and so does an operation on the GPU that outlasts [`World::watch`]'s timeout.
//! - Nothing may be left to do after [`World::finish`]: once a rank has exited with a code other than
//!   0, mpirun kills the ranks that have not.
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
pub use average::Averager;
pub use collective::{Bucket, Buffer, Collective, Reduce};
pub use error::CommError;
pub use nccl_rs::{DType, DeviceSlice, StreamHandle};
pub use partition::partition;
pub use select::{Memory, Selected, Transport, Wanted};
pub use world::World;
