//! Benchmarks of training: what a configuration costs on this machine, measured with the code that training runs.
//!
//! A [`Bench`] is what each of them needs; all ranks run the same one together.

mod allreduce;
mod checkpoint;
mod context;
mod loader;
mod measure;
mod report;
mod stall;
mod step;

pub use allreduce::allreduce;
pub use checkpoint::checkpoint;
pub use context::Bench;
pub use loader::loader;
pub use report::Report;
pub use step::step;
