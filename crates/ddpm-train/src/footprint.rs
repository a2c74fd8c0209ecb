//! Estimates the memory that training needs on each rank before it starts, and suggests settings that reduce it.

use ddpm_config::{ModelKind, Precision, Settings};
use ddpm_data::Batch;
use ddpm_model::Error;
use ddpm_telemetry::peak_rss_mb;
use serde::Serialize;
use tch::{Device, Kind};
use tch_ext::{MemoryWatch, norm_of_the_gpu, with_group_norm};

use crate::ahead::{Ahead, bytes_ahead};
use crate::build::batches_ahead;
use crate::on_device::OnDevice;
use crate::state::TrainState;
use crate::step::forward;
use crate::task::Task;

/// Numbers of images in the two measured passes from which larger ones are extrapolated. A pass of one image comes first:
/// what it leaves, the hashes for dropout, is kept as long as the state.
const PROBES: [usize; 2] = [2, 4];

/// Allocator fragmentation (free holes between blocks of other sizes), as a fraction of the activations. On top of
/// it, fragmentation of the same size as backward's temporaries is assumed, because these come in many sizes.
/// Measured with a jemalloc that retains its pages (docs/log.md; docs/performance.md compares estimates with actual
/// use).
const HOLES: f64 = 0.17;

/// Memory of one rank at the peak of a step, in MB (10^6 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Footprint {
    /// The device whose memory all fields except `process` refer to: `cpu` or `cuda`.
    pub device: &'static str,
    /// The program, its libraries, and the batches decoded ahead; always in host memory.
    pub process: f64,
    /// Weights, gradients, optimizer moments, averages, and the hashes for dropout.
    pub state: f64,
    /// Activations that the forward pass of a micro-batch keeps for backward; on a GPU, also the copy of the micro-batch.
    pub activations: f64,
    /// Additional memory at the peak of the backward or forward pass.
    pub temporaries: f64,
    /// Allocator fragmentation; not estimated for a GPU.
    pub holes: Option<f64>,
    /// A GPU's copy of this rank's share of a checkpoint, from which a save in flight reads. On the CPU, a save in flight is
    /// not included.
    pub saved: Option<f64>,
    /// The sum of those fields that are in the device's memory. On a GPU, the memory that CUDA and its libraries use
    /// is not included.
    pub total: f64,
}

/// Advice on reducing the memory of training with these settings on `world` ranks, as a sentence without the full
/// stop. `has_bf16` is whether the device supports bf16 products natively: emulated bf16 saves little memory.
pub fn relief(settings: &Settings, world: usize, has_bf16: bool) -> String {
    let (train, model) = (&settings.train, &settings.model);
    let slice = train.global_batch / world.max(1);
    let images = train.micro_batch.unwrap_or(slice);
    let mut ways = Vec::new();
    if let Some(fewer) = (1..images).rev().find(|fewer| slice.is_multiple_of(*fewer)) {
        ways.push(format!("train.micro_batch to {fewer} (now {images})"));
    }
    let levels = model.channels.len();
    let has_levels = model.kind != ModelKind::Small;
    if has_levels && model.checkpoint_activations.iter().filter(|on| **on).count() < levels {
        ways.push(format!("model.checkpoint_activations to {:?}", vec![true; levels]));
    }
    if train.precision == Precision::Fp32 && has_bf16 {
        ways.push("train.precision to \"bf16\"".into());
    }
    match ways.as_slice() {
        [] => "Train a smaller model, or take devices with more memory".into(),
        [only] => format!("Set {only}"),
        [more @ .., last] => format!("Set {} or {last}", more.join(", ")),
    }
}

/// Memory of one forward and backward pass in bytes, without the training state.
#[derive(Clone, Copy)]
struct Pass {
    /// Held between forward and backward.
    kept: f64,
    /// At the peak.
    peak: f64,
}

impl Footprint {
    /// The footprint of one rank out of `world`, extrapolated from a small measurement. State and activations are
    /// measured in libtorch's allocator during forward and backward passes of a few images, since both kept and peak
    /// memory are affine in the number of images. The rest is what this process uses apart from its tensors.
    /// Everything is measured on the CPU, even for GPUs: tensors have the same size there, provided that the group
    /// norms are computed as on this process's GPU.
    pub fn of(settings: &Settings, world: usize, precision: Kind, on_gpu: bool) -> Result<Self, Error> {
        if on_gpu {
            with_group_norm(norm_of_the_gpu(), || Self::measured(settings, world, precision, true))
        } else {
            Self::measured(settings, world, precision, false)
        }
    }

    fn measured(settings: &Settings, world: usize, precision: Kind, on_gpu: bool) -> Result<Self, Error> {
        let task = Task::of(settings, Device::Cpu, precision)?;
        let slice = settings.train.global_batch / world;
        let images = task.micro_batch.min(slice);
        let ahead = Ahead::of(settings, &task.network, Device::Cpu);
        let mut watch = MemoryWatch::begin()?;
        let state = TrainState::fresh(settings, &task.network, Device::Cpu)?;
        probe(&task, &ahead, &state, &mut watch, on_gpu, 1)?;
        let base = watch.live();
        let mut largest = watch.take_peak();
        let mut pass = |count: usize| -> Result<Pass, Error> {
            let pass = probe(&task, &ahead, &state, &mut watch, on_gpu, count)?;
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
        // Gradients that wait for the rest of their bucket.
        let bucket = (settings.comm.bucket_bytes() as f64).min(4.0 * task.network.layout().len() as f64);
        let whole = Pass { peak: whole.peak + bucket, ..whole };
        let share = state.megabytes() / world as f64;
        drop(state);
        drop(watch);
        let values = (batches_ahead(settings) * slice) as f64 * task.image.iter().product::<i64>() as f64;
        let decoded = values * bytes_ahead(settings.data.depth()) as f64;
        let process = peak_rss_mb() + (decoded - largest as f64) / 1e6;
        let [state, activations, peak] = [base as f64, whole.kept, whole.peak].map(|bytes| bytes / 1e6);
        let temporaries = peak - activations;
        if on_gpu {
            let (device, holes, saved, total) = ("cuda", None, Some(share), state + peak + share);
            return Ok(Self { device, process, state, activations, temporaries, holes, saved, total });
        }
        let holes = HOLES * activations + temporaries;
        let total = process + state + peak + holes;
        let (device, holes, saved) = ("cpu", Some(holes), None);
        Ok(Self { device, process, state, activations, temporaries, holes, saved, total })
    }
}

/// Measures one forward and backward pass of `count` black images. `on_gpu` is whether they have a copy in its memory.
fn probe(
    task: &Task,
    ahead: &Ahead,
    state: &TrainState,
    watch: &mut MemoryWatch,
    on_gpu: bool,
    count: usize,
) -> Result<Pass, Error> {
    let mut batch = Batch { images: vec![0; count * ahead.image_bytes()], labels: vec![0; count], ..Batch::default() };
    ahead.draw(&mut batch)?;
    let base = watch.live();
    watch.take_peak();
    let draws = state.sampler.draws(batch.prepared.units());
    let micro = task.micro_batches(&batch.prepared, &draws).next().expect("at least one image");
    let inputs = OnDevice::upload(task, &micro, Device::Cpu)?;
    let inputs = if on_gpu { inputs.copied()? } else { inputs };
    let loss = forward(task, &state.weights, &inputs)?.weighted_mean(&inputs.loss_weights)?;
    let kept = watch.live() - base;
    loss.f_backward()?;
    Ok(Pass { kept: kept as f64, peak: (watch.take_peak() - base) as f64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(more: &[&str]) -> Settings {
        let more: Vec<String> = more.iter().map(|set| (*set).to_owned()).collect();
        Settings::load("smoke", &more).unwrap()
    }

    #[test]
    fn advice_is_what_can_still_be_done() {
        let advice = |world, more: &[&str]| relief(&settings(more), world, true);
        let levels = settings(&[]).model.channels.len();
        assert_eq!(
            advice(2, &["train.global_batch=24"]),
            format!(
                "Set train.micro_batch to 6 (now 12), model.checkpoint_activations to {:?} or train.precision to \"bf16\"",
                vec![true; levels]
            )
        );
        let all = format!("model.checkpoint_activations={:?}", vec![true; levels]);
        assert_eq!(advice(1, &["train.micro_batch=1", &all]), "Set train.precision to \"bf16\"");
        let nothing = advice(1, &["train.micro_batch=1", "train.precision=bf16", &all]);
        assert!(nothing.starts_with("Train a smaller model"), "{nothing}");
        let emulated = relief(&settings(&["train.micro_batch=1", &all]), 1, false);
        assert!(emulated.starts_with("Train a smaller model"), "{emulated}");
        let advised = Settings::load("smoke", &["train.global_batch=24".into(), "train.micro_batch=6".into()]);
        assert!(advised.unwrap().check_world(2).is_ok());
    }

    /// Without a GPU's kernels, norms are composed, so they keep more activations.
    #[test]
    fn a_gpu_s_footprint_is_that_of_its_tensors() {
        let settings = settings(&[]);
        let [cpu, gpu] = [false, true].map(|on_gpu| Footprint::of(&settings, 1, Kind::Float, on_gpu).unwrap());
        assert_eq!((cpu.device, gpu.device, gpu.holes, cpu.saved), ("cpu", "cuda", None, None));
        assert_eq!(cpu.state, gpu.state);
        assert!(gpu.activations > cpu.activations, "{gpu:?} and {cpu:?}");
        let share = gpu.saved.unwrap();
        assert_eq!(gpu.total, gpu.state + gpu.activations + gpu.temporaries + share);
        let halved = Footprint::of(&settings, 2, Kind::Float, true).unwrap();
        assert!((halved.saved.unwrap() - share / 2.0).abs() < 1e-9, "{halved:?} and {gpu:?}");
    }

    /// The hashes for dropout have the size of one image's activations in each layer, and are kept.
    #[test]
    fn the_hashes_for_dropout_count_as_state() {
        let state = |rate: &str| {
            let settings = settings(&[&format!("model.dropout={rate}"), "train.global_batch=8"]);
            Footprint::of(&settings, 1, Kind::Float, false).unwrap()
        };
        let [without, with, more] = ["0", "0.1", "0.2"].map(state);
        assert!(with.state > without.state, "{with:?} and {without:?}");
        assert_eq!((with.state, with.activations), (more.state, more.activations));
    }
}
