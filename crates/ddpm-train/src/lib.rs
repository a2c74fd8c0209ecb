//! The trainer of diffusion models across ranks, as a library.
//!
//! A [`Plan`] describes what a run starts from, a [`Trainer`] runs the training steps, and a [`TrainObserver`] is
//! called around each of them.
//!
//! ```
//! use ddpm_comm::World;
//! use ddpm_config::Settings;
//! use ddpm_model::Place;
//! use ddpm_train::{Ending, Monitor, Plan, StopRequest, Trainer};
//!
//! let world = World::init().unwrap();
//! let comm = world.collective();
//! # let dir = tempfile::tempdir().unwrap();
//! # let run_dir = dir.path().join("run").display().to_string();
//! let settings = Settings::load("smoke", &[format!("run.dir={run_dir:?}"), "train.steps=2".into()]).unwrap();
//! let mut trainer = Trainer::prepare(&comm, Place::CPU, Plan::fresh(settings), &StopRequest::default()).unwrap();
//! // Metrics, TensorBoard, progress and sample grids.
//! let monitor = Monitor::open(&trainer.run()).unwrap();
//! trainer.observe(monitor);
//! assert_eq!(trainer.train().unwrap(), Ending::Finished);
//! world.finish(0)
//! ```
//!
//! To read the code, start with `step.rs`, which is one training step. `trainer.rs` is the loop around it, and
//! `checkpointing/` saves and restores the state. docs/architecture.md walks through a step and a save.

mod adopt;
mod ahead;
mod build;
mod checkpointing;
mod clock;
mod data_record;
mod evaluations;
mod footprint;
mod gpu_usage;
mod gradient_sync;
mod heartbeat;
mod huge_pages;
mod monitor;
mod objective;
mod observer;
mod on_device;
mod passes;
mod peak_flops;
mod plan;
mod precision;
mod preview;
mod profile;
mod program;
mod rank_times;
mod report;
mod run_config;
mod state;
mod step;
mod stop;
mod stopwatch;
mod straggler;
mod task;
mod terms;
#[cfg(test)]
mod tests;
mod threads;
mod trainer;
mod workload;

pub use adopt::adopt;
pub use ahead::{Ahead, Prepared};
pub use build::{loader, transport};
pub use checkpointing::{Checkpoint, ResumeFrom, Saver, read_together, restore};
pub use clock::{Clock, Lap, Times};
pub use data_record::{DATA, DataChange, DataRecord};
pub use footprint::{Footprint, relief};
pub use gpu_usage::GpuUsage;
pub use gradient_sync::{GradientSync, Norms};
pub use huge_pages::HugePages;
pub use monitor::Monitor;
pub use objective::Objective;
pub use observer::{Run, TrainObserver};
pub use plan::Plan;
pub use precision::{agree_on_precision, choose_convolutions};
pub use profile::{Profile, RECORDED, TracedSteps};
pub use program::Program;
pub use rank_times::{RankSpreads, Spread};
pub use report::{LogStep, Means};
pub use state::TrainState;
pub use stop::StopRequest;
pub use task::Task;
pub use threads::limit_threads;
pub use trainer::{Ending, Trainer};
pub use workload::workload;
