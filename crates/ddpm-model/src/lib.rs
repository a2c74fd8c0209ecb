//! Trained models: open them, draw images from them with or without guidance, evaluate them, and classify images.
//!
//! A model is loaded from a run, a run at a step (`runs/mnist@5000`), the store of a run, or a diffusers directory.
//! All ranks open it together, and each draws its share of the images; image i depends only on (seed, i).
//!
//! ```
//! use ddpm_comm::World;
//! use ddpm_diffusion::{Sampler, Spacing, kept_timesteps};
//! use ddpm_model::{Generation, Model, WeightChoice};
//! use tch::Device;
//!
//! let world = World::init().unwrap();
//! let comm = world.collective();
//! let source = "../../tests/golden/pipeline-digits"; // saved by diffusers
//! let model = Model::open(comm.as_ref(), source, WeightChoice::SlowestAverage, Device::Cpu).unwrap();
//! let kept = kept_timesteps(Spacing::Trailing, model.diffusion.timesteps(), 5).unwrap();
//! let process = model.diffusion.respaced(&kept).unwrap();
//! let drawn = Generation::of(&model, &process, Sampler::DpmSolver).gather(comm.as_ref(), 2, |_, _| ()).unwrap();
//! assert_eq!(drawn.samples.len(), 2 * model.network.image().values());
//! # world.finish(0)
//! ```
//!
//! An [`Error`] has a kind, a cause, and remedies that a program phrases in terms of its own options. A [`Failure`]
//! also records whether all ranks return it, so that they can shut down together.

mod agreement;
mod arithmetic;
mod bound;
mod build;
mod classifier;
pub mod compare;
mod conversions;
pub mod data;
mod device;
mod diffusers;
mod digest;
mod draw;
mod error;
mod export;
pub mod file_charts;
pub mod finite;
mod guidance;
mod guides;
mod image_folder;
pub mod images;
mod images_per_pass;
mod import;
mod learner;
mod libtorch;
mod model;
pub mod pictures;
mod predictions;
pub mod process_charts;
mod run_dir;
mod same_run;
pub mod samples;
mod shuffled;
mod snapshots;
pub mod steps;
pub mod tensor_file;
mod transfer;
mod unsaid;
mod weights;

pub use arithmetic::{Arithmetic, agree_on_kind, kind_name};
pub use bound::BoundTask;
pub use build::{current_folder, diffusion, store_options};
pub use classifier::Classifier;
pub use ddpm_diffusion::NoiseInterval;
pub use device::{Place, gpu_remedy, resolve_device, resolve_for_training};
pub use draw::{Drawn, Generation, gather};
pub use error::{Error, ErrorKind, Failure, Remedy};
pub use export::{Export, ExportFolder, ExportOptions, Format};
pub use guidance::GuidanceOptions;
pub use guides::{Guided, Guides};
pub use image_folder::ImageFolder;
pub use images_per_pass::images_per_pass;
pub use import::{Imported, NoiseSchedule, OpenAiArguments, import};
pub use learner::Learner;
pub use model::{Model, Origin};
pub use predictions::Predictions;
pub use run_dir::{store_of, with_relocated_paths};
pub use same_run::{adopt_run, newest_besides};
pub use shuffled::{ImageBatch, ShuffledImages};
pub use snapshots::{BEGUN, UPDATES, copy_snapshots, find_snapshots, snapshots_of};
pub use transfer::initial_weights;
pub use unsaid::Unsaid;
pub use weights::{EMA_PREFIX, WEIGHTS, WeightChoice, average_buffer, averagings, slowest, width_in};
