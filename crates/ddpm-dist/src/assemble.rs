//! From validated settings to the objects that a run is made of.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ddpm_checkpoint::StoreOptions;
use ddpm_config::{LrShape, Settings};
use ddpm_data::{Loader, LoaderConfig, Order, Source, Split, class_phrases, some_of};
use ddpm_diffusion::{Diffusion, TimestepSampler, VISIBLE_SIGNAL, betas};
use ddpm_nn::LrSchedule;
use tch::Device;

use crate::failure::{Exit, Failure};

/// Classes that a line of the log names.
const CLASSES_SHOWN: usize = 20;

/// Batches decoded ahead per worker.
const PREFETCH_PER_WORKER: usize = 2;

/// The diffusion process that `[diffusion]` describes; warns where its last step leaves visible signal.
pub fn diffusion(settings: &Settings, device: Device) -> Result<Diffusion, Failure> {
    let d = &settings.diffusion;
    let process = Diffusion::new(betas(&d.beta_schedule(), d.timesteps as usize)?, d.spec(), device)?;
    let signal = process.terminal_signal();
    if signal > VISIBLE_SIGNAL {
        tracing::warn!(
            "the schedule ends with alphas_cumprod = {signal:.3}: x_T still shows the image, which sampling from pure \
             noise never does; raise diffusion.timesteps or diffusion.beta_end"
        );
    }
    Ok(process)
}

/// How training timesteps are drawn, with an empty history.
pub fn timestep_sampler(settings: &Settings) -> TimestepSampler {
    let d = &settings.diffusion;
    let global_batch = NonZeroU64::new(settings.train.global_batch as u64).expect("validated to be at least 1");
    TimestepSampler::new(d.timestep_sampler, d.timesteps as usize, global_batch)
}

/// The learning rate that `[train]` describes.
pub fn lr_schedule(settings: &Settings) -> LrSchedule {
    let t = &settings.train;
    LrSchedule {
        peak: t.lr,
        warmup_steps: t.warmup_steps,
        cosine_until: (t.lr_schedule == LrShape::Cosine).then_some(t.steps),
    }
}

/// Opens the data set that `[data]` describes, and checks that its classes are those of `[model]`.
pub fn open_data(settings: &Settings, split: Split) -> Result<Arc<dyn Source>, Failure> {
    let source = ddpm_data::open(&settings.data_spec(split)?)?;
    let Some(classes) = settings.model.classes else { return Ok(source) };
    match source.classes() {
        Some(found) if found <= classes as usize => Ok(source),
        Some(found) => Err(Failure::usage(format!(
            "the data has {found} classes but model.classes is {classes}; set it to {found}"
        ))),
        None => Err(Failure::usage(format!(
            "model.classes is {classes} but the data carries no labels; set data.labels, or leave model.classes out"
        ))),
    }
}

/// The first classes of a data set with their names and numbers of images, in a line for the log.
pub fn classes_in_short(source: &dyn Source) -> String {
    let table = source.class_table();
    some_of(class_phrases(&table), CLASSES_SHOWN)
}

/// Batches that a rank holds beside the one it trains on: ready, being decoded, or about to be used again.
pub fn batches_ahead(settings: &Settings) -> usize {
    PREFETCH_PER_WORKER * settings.data.workers + 1
}

/// Delivers one rank's slice of each batch, in `order`, from `start_step` on.
pub fn loader(
    settings: &Settings,
    source: &Arc<dyn Source>,
    order: Order,
    start_step: u64,
    rank: usize,
    world: usize,
) -> Result<Loader, Failure> {
    let workers = settings.data.workers;
    let config = LoaderConfig {
        global_batch: settings.train.global_batch,
        slice: ddpm_checkpoint::share(settings.train.global_batch, rank, world),
        start_step,
        workers,
        prefetch: PREFETCH_PER_WORKER * workers,
        flip: settings.data.flip,
        flip_seed: settings.seed,
    };
    Ok(Loader::new(Arc::clone(source), order, config)?)
}

/// The folder that relative paths are seen from.
pub fn current_folder() -> Result<PathBuf, Failure> {
    std::env::current_dir().map_err(|e| {
        Failure::new(Exit::Storage, format!("the current folder is gone ({e}); change to one that is there"))
    })
}

/// How the store is talked to.
pub fn store_options(settings: &Settings) -> StoreOptions {
    let c = &settings.checkpoint;
    StoreOptions {
        part_bytes: (c.part_mb as usize) << 20,
        concurrency: c.concurrency,
        retry_timeout: Duration::from_secs(c.retry_s),
        ..StoreOptions::default()
    }
}
