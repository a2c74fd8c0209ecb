//! What training will take of memory on each rank, told before it starts.

use ddpm_config::Settings;
use ddpm_data::Batch;
use serde::Serialize;
use tch::{Device, Kind};
use tch_ext::MemoryWatch;

use super::state::TrainState;
use super::step::{Task, weighted_mean};
use crate::assemble;
use crate::failure::Failure;
use crate::telemetry::peak_rss_mb;

/// Images of the two passes from which larger ones are told.
const PROBES: [usize; 2] = [2, 4];

/// Memory that the allocator holds in holes between blocks of other sizes, as a share of what the forward pass keeps; on
/// top of it as much as backward's temporaries take, which come in many sizes. Measured with jemalloc that keeps its pages
/// (docs/log.md; docs/performance.md compares what is told with what is taken).
const HOLES: f64 = 0.17;

/// Memory of one rank at the peak of a step, in MB (10^6 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Footprint {
    /// The program, its libraries, and the batches decoded ahead.
    pub process: f64,
    /// Weights, gradients, moments and averages.
    pub state: f64,
    /// What the forward pass of a micro-batch leaves for backward.
    pub activations: f64,
    /// What backward, or forward, takes on top at its worst.
    pub temporaries: f64,
    /// What the allocator holds in holes between those two.
    pub holes: f64,
    /// All of these.
    pub total: f64,
}

/// Bytes beside the state.
#[derive(Clone, Copy)]
struct Pass {
    /// Between forward and backward.
    kept: f64,
    /// At the worst moment.
    peak: f64,
}

impl Footprint {
    /// The footprint of a rank among `world`, which is measured at a small scale: state and tensors by libtorch's
    /// allocator in forward and backward passes of a few images, of which both are affine functions; the rest as what
    /// this process takes beside its tensors in the end.
    ///
    /// A save in flight is not in it.
    pub fn of(settings: &Settings, world: usize, precision: Kind) -> Result<Self, Failure> {
        let task = Task::of(settings, Device::Cpu, precision)?;
        let slice = settings.train.global_batch / world;
        let images = task.micro_batch.min(slice);
        let mut watch = MemoryWatch::begin()?;
        let state = TrainState::fresh(settings, &task.network, Device::Cpu)?;
        let base = watch.live();
        let mut largest = watch.take_peak();
        let mut pass = |count: usize| -> Result<Pass, Failure> {
            let pass = probe(&task, &state, &mut watch, count)?;
            largest = largest.max(base + pass.peak as i64);
            Ok(pass)
        };
        let [few, more] = PROBES;
        let whole = if images <= more {
            pass(images)?
        } else {
            let (few_images, more_images) = (pass(few)?, pass(more)?);
            let at = |few_bytes: f64, more_bytes: f64| {
                few_bytes + (more_bytes - few_bytes) * (images - few) as f64 / (more - few) as f64
            };
            Pass { kept: at(few_images.kept, more_images.kept), peak: at(few_images.peak, more_images.peak) }
        };
        drop(state);
        drop(watch);
        let decoded = (assemble::batches_ahead(settings) * slice) as f64 * task.image.iter().product::<i64>() as f64;
        let process = peak_rss_mb() + (decoded - largest as f64) / 1e6;
        let [state, activations, peak] = [base as f64, whole.kept, whole.peak].map(|bytes| bytes / 1e6);
        let temporaries = peak - activations;
        let holes = HOLES * activations + temporaries;
        let total = process + state + peak + holes;
        Ok(Self { process, state, activations, temporaries, holes, total })
    }
}

/// One forward and backward pass of `count` black images.
fn probe(task: &Task, state: &TrainState, watch: &mut MemoryWatch, count: usize) -> Result<Pass, Failure> {
    let base = watch.live();
    watch.take_peak();
    let bytes = count * task.image.iter().product::<i64>() as usize;
    let batch = Batch { images: vec![0; bytes], labels: vec![0; count], ..Batch::default() };
    let positions: Vec<u64> = (0..count as u64).collect();
    let draws = state.sampler.draw(task.seed, &positions);
    let terms = task.micro_step(state, &batch, 0..count, &positions, &draws)?;
    let loss = weighted_mean(&terms, &draws);
    let kept = watch.live() - base;
    loss.f_backward()?;
    Ok(Pass { kept: kept as f64, peak: (watch.take_peak() - base) as f64 })
}
