//! Builds the parts of a training run from validated settings.

use std::num::NonZeroU64;
use std::sync::Arc;

use ddpm_comm::{Agreed, Collective, CommError, Memory, Wanted, World, partition};
use ddpm_config::{Backend, LrShape, Settings};
use ddpm_data::{Loader, LoaderConfig, Order, Prepare, Source};
use ddpm_diffusion::TimestepSampler;
use ddpm_model::{Error, Failure};
use ddpm_nn::LrSchedule;

/// Number of batches that each worker decodes ahead.
const PREFETCH_PER_WORKER: usize = 2;

/// The sampler of training timesteps, with an empty history.
pub fn timestep_sampler(settings: &Settings) -> TimestepSampler {
    let d = &settings.diffusion;
    let global_batch = NonZeroU64::new(settings.train.global_batch as u64).expect("validated to be at least 1");
    TimestepSampler::new(d.timestep_sampler, d.timesteps as usize, global_batch)
}

/// The learning rate schedule that `[train]` configures.
pub fn lr_schedule(settings: &Settings) -> LrSchedule {
    let t = &settings.train;
    LrSchedule {
        peak: t.lr,
        warmup_steps: t.warmup_steps,
        cosine_until: match t.lr_schedule {
            LrShape::Constant => None,
            LrShape::Cosine => Some(t.steps),
        },
    }
}

/// Number of batches that a rank holds in addition to the one it trains on: ready, being decoded, or waiting to be
/// reused.
pub fn batches_ahead(settings: &Settings) -> usize {
    PREFETCH_PER_WORKER * settings.data.workers + 1
}

/// A loader that delivers one rank's slice of each global batch, in `order`, starting with the batch of `start_step`,
/// with what `prepare` adds.
pub fn loader<P: Prepare>(
    settings: &Settings,
    source: &Arc<dyn Source>,
    order: Order,
    start_step: u64,
    rank: usize,
    world: usize,
    prepare: P,
) -> Result<Loader<P>, Error> {
    let workers = settings.data.workers;
    let config = LoaderConfig {
        global_batch: settings.train.global_batch,
        slice: partition(settings.train.global_batch, rank, world),
        start_step,
        workers,
        prefetch: PREFETCH_PER_WORKER * workers,
        flip: settings.data.flip,
        flip_seed: settings.seed,
    };
    Ok(Loader::new(Arc::clone(source), order, config, prepare)?)
}

/// Selects the collective that averages gradients in `memory`, as configured, and logs the choice.
pub fn transport(world: &World, backend: Backend, memory: Memory) -> Result<Arc<dyn Collective>, Failure> {
    let wanted = match backend {
        Backend::Auto => Wanted::Auto,
        Backend::Solo | Backend::Mpi => Wanted::Host,
        Backend::Nccl => Wanted::Nccl,
    };
    let selected = world.select(wanted, memory).map_err(|error| match error {
        CommError::NoNccl { .. } => Agreed::known_to_all(Error::config(error)).into(),
        error => Failure::from(error),
    })?;
    if world.size() > 1 {
        tracing::info!("{}", selected.why);
    }
    Ok(selected.collective)
}
