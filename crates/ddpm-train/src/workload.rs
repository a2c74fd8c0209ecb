//! What a run computes, exchanges and stores, for the cost model of ddpm-plan.

use ddpm_comm::cut_into_buckets;
use ddpm_config::{Backend, Settings};
use ddpm_model::{Error, averagings};
use ddpm_nn::Weights;
use ddpm_plan::{Transport, Workload};
use tch::{Device, Kind};

use crate::footprint::Footprint;
use crate::precision::choose_convolutions;
use crate::task::Task;

/// How long a run waits before it gives up on a silent host, at most: the keepalives of launch/hosts.sh.
const SILENCE_S: f64 = 120.0;

/// What a run with these settings, which fit `ranks` ranks, computes on a data set of `images`. Its operations are
/// counted, and its memory measured, in passes of a few images on the CPU.
///
/// # Errors
/// libtorch fails, or memory runs out.
pub fn workload(
    settings: &Settings,
    ranks: usize,
    precision: Kind,
    on_gpu: bool,
    images: u64,
) -> Result<Workload, Error> {
    let (train, comm, checkpoint) = (&settings.train, &settings.comm, &settings.checkpoint);
    choose_convolutions(train);
    let task = Task::of(settings, Device::Cpu, precision)?;
    let layout = task.network.layout();
    let flops_per_image = task.flops(&Weights::initialise(layout, settings.seed, Device::Cpu)?)?;
    let lens: Vec<usize> = layout.entries().iter().map(|entry| entry.len() as usize).collect();
    let (buckets, _) = cut_into_buckets(&lens, comm.bucket_bytes() / size_of::<f32>());
    let memory = Footprint::of(settings, ranks, precision, on_gpu)?;
    Ok(Workload {
        parameters: layout.len() as u64,
        averages: averagings(&settings.ema).count(),
        flops_per_image,
        // Backward completes the last parameters first.
        buckets: buckets.iter().rev().map(|bucket| (size_of::<f32>() * bucket.len()) as f64).collect(),
        overlaps: comm.overlap,
        transport: if on_gpu && comm.backend != Backend::Mpi { Transport::Nccl } else { Transport::Mpi },
        global_batch: train.global_batch as u64,
        passes: task.passes(ranks) as u64,
        images,
        steps: train.steps,
        memory_mb: memory.total,
        save_every: checkpoint.every,
        // Ranks notice, and the next job waits for the lease of the last one.
        restart_s: (0.75 * comm.timeout_s as f64).min(SILENCE_S) + checkpoint.lease_s as f64,
    })
}
