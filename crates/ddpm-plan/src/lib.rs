//! What a training run would cost on a cluster: the time of a step, of an epoch and of the run, and how often to save.
//!
//! Arithmetic only: a [`Workload`] says what a run computes and exchanges, a [`Cluster`] what it runs on, and
//! [`Plan::of`] puts them together. docs/scaling.md derives the formulae and cites their sources.
//!
//! ```
//! use ddpm_plan::{Cluster, Machine, Plan, Transport, Workload};
//! use ddpm_spec::Precision;
//!
//! let workload = Workload {
//!     parameters: 35_746_307,
//!     averages: 1,
//!     flops_per_image: 37.6e9,
//!     buckets: vec![23.8e6; 6],
//!     overlaps: true,
//!     transport: Transport::Nccl,
//!     global_batch: 4096,
//!     passes: 1,
//!     images: 50_000,
//!     steps: 800_000,
//!     memory_mb: 3000.0,
//!     save_every: 5000,
//!     restart_s: 150.0,
//! };
//! let machine = Machine::named("h100", Precision::Bf16, None, 0.3).unwrap();
//! let on = |ranks| {
//!     let cluster = Cluster {
//!         ranks,
//!         machine: machine.clone(),
//!         per_node: 8,
//!         network_gbit: 400.0,
//!         latency_us: 20.0,
//!         jitter: 0.02,
//!         mtbf_hours: 6300.0,
//!         store_mb_s: 140.0,
//!     };
//!     Plan::of(&workload, &cluster)
//! };
//! assert!(on(64).step_s < on(8).step_s);
//! ```

mod allreduce;
mod cluster;
mod error;
mod failures;
mod machine;
mod overlap;
mod peaks;
mod plan;
mod stragglers;
mod table;
mod workload;

pub use allreduce::Algorithm;
pub use cluster::Cluster;
pub use error::Error;
pub use machine::Machine;
pub use peaks::peak_tflops;
pub use plan::Plan;
pub use workload::{Transport, Workload};
