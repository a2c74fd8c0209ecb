//! The prediction: a workload on a cluster.

use serde::Serialize;

use crate::allreduce::Algorithm;
use crate::cluster::Cluster;
use crate::failures::Saving;
use crate::overlap::averaged_at;
use crate::stragglers::expected_max;
use crate::workload::{Transport, Workload};

/// The part of training's operations that backward takes: two products for each one of forward.
const BACKWARD: f64 = 2.0 / 3.0;

/// What a rank on a CPU copies for a save, in bytes per second: `bench checkpoint --steps` is held up by 0.28 s for
/// 572 MB (docs/performance.md).
const CPU_COPY: f64 = 2e9;

/// What a run is predicted to cost. Times are in seconds, sizes in MB of 10^6 bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// The machine of each rank.
    pub gpu: &'static str,
    /// Number of ranks.
    pub gpus: usize,
    /// Number of nodes.
    pub nodes: usize,
    /// Images of a step, over all ranks.
    pub global_batch: u64,
    /// Images of a step on each rank.
    pub images_per_gpu: u64,
    /// Trained parameters.
    pub parameters: u64,
    /// Floating-point operations of training on one image, in 10^9.
    pub gflops_per_image: f64,
    /// Speed of each rank in forward and backward passes, in 10^12 operations per second.
    pub tflops: f64,
    /// The fraction of its peak that this is assumed to be; null if the speed was given.
    pub assumed_mfu: Option<f64>,
    /// Memory of a rank in a step.
    pub memory_mb: f64,
    /// Memory of its GPU; null on a CPU.
    pub gpu_memory_mb: Option<f64>,
    /// Forward and backward passes of a step.
    pub compute_s: f64,
    /// Waiting for the slowest rank.
    pub straggler_s: f64,
    /// How gradients are averaged.
    pub algorithm: Algorithm,
    /// Averaging all gradients, bucket by bucket, if nothing else happened.
    pub allreduce_s: f64,
    /// What remains of it after backward.
    pub exposed_s: f64,
    /// The small exchanges of a step: heartbeat and norms.
    pub exchanges_s: f64,
    /// Optimizer and averages, as far as they are not part of the measured speed.
    pub update_s: f64,
    /// A step.
    pub step_s: f64,
    /// Images per second, over all ranks.
    pub images_per_s: f64,
    /// The fraction of a step that computes.
    pub efficiency: f64,
    /// Steps of an epoch.
    pub steps_per_epoch: f64,
    /// An epoch.
    pub epoch_s: f64,
    /// Size of a checkpoint.
    pub checkpoint_mb: f64,
    /// How long a save holds up training.
    pub stall_s: f64,
    /// How long it takes until a save counts.
    pub save_s: f64,
    /// Mean time between failures of the run.
    pub mtbf_s: f64,
    /// From a failure until the run trains again.
    pub restart_s: f64,
    /// The fraction of time that is not lost to saves and failures, as configured.
    pub goodput: f64,
    /// Steps between saves, as configured.
    pub save_every: u64,
    /// The best number of steps between saves.
    pub best_save_every: u64,
    /// The fraction of time that is then not lost.
    pub best_goodput: f64,
    /// Steps of the run.
    pub steps: u64,
    /// All steps, with saves and failures, as configured.
    pub run_s: f64,
}

impl Plan {
    /// What `workload` is predicted to cost on `cluster`.
    pub fn of(workload: &Workload, cluster: &Cluster) -> Self {
        let (machine, fabric, ranks) = (&cluster.machine, cluster.fabric(), cluster.ranks as f64);
        let average = |bytes: f64| match workload.transport {
            Transport::Nccl => fabric.nccl(bytes),
            Transport::Mpi => fabric.mpi(bytes),
        };
        let images_per_gpu = workload.global_batch as f64 / ranks;
        let compute_s = images_per_gpu * workload.flops_per_image / (machine.tflops * 1e12);
        let last_backward = BACKWARD * compute_s / workload.passes as f64;
        let seconds = |bytes: f64| average(bytes).seconds;
        let exposed_s = averaged_at(&workload.buckets, last_backward, workload.overlaps, seconds) - last_backward;
        let straggler_s = cluster.jitter * compute_s * expected_max(cluster.ranks);
        let exchanges_s = fabric.small_exchanges();
        let update_s = machine.memory_gb_s.map_or(0.0, |rate| workload.update_bytes() / (rate * 1e9));
        let step_s = compute_s + straggler_s + exposed_s + exchanges_s + update_s;
        let images_per_s = workload.global_batch as f64 / step_s;

        let checkpoint_mb = workload.checkpoint_bytes() / 1e6;
        // Read and written again in a GPU's memory.
        let copy = machine.memory_gb_s.map_or(CPU_COPY, |rate| rate * 1e9 / 2.0);
        let transfer_s = checkpoint_mb / cluster.store_mb_s;
        let stall_s = checkpoint_mb * 1e6 / ranks / copy;
        let saving = Saving {
            stall_s,
            save_s: stall_s + transfer_s,
            mtbf_s: 3600.0 * cluster.mtbf_hours / fabric.nodes() as f64,
            restart_s: workload.restart_s + transfer_s,
        };
        let goodput = |every: u64| saving.goodput(every as f64 * step_s);
        // Rounded down, each save would wait for the last one.
        let best_save_every = (saving.best() / step_s).ceil().max(1.0) as u64;
        Self {
            gpu: machine.name,
            gpus: cluster.ranks,
            nodes: fabric.nodes(),
            global_batch: workload.global_batch,
            images_per_gpu: images_per_gpu as u64,
            parameters: workload.parameters,
            gflops_per_image: workload.flops_per_image / 1e9,
            tflops: machine.tflops,
            assumed_mfu: machine.assumed_mfu,
            memory_mb: workload.memory_mb,
            gpu_memory_mb: machine.memory_gb.map(|size| 1e3 * size),
            compute_s,
            straggler_s,
            algorithm: average(workload.buckets.iter().copied().fold(0.0, f64::max)).algorithm,
            allreduce_s: workload.buckets.iter().map(|bytes| seconds(*bytes)).sum(),
            exposed_s,
            exchanges_s,
            update_s,
            step_s,
            images_per_s,
            efficiency: (compute_s + update_s) / step_s,
            steps_per_epoch: workload.images as f64 / workload.global_batch as f64,
            epoch_s: workload.images as f64 / images_per_s,
            checkpoint_mb,
            stall_s,
            save_s: saving.save_s,
            mtbf_s: saving.mtbf_s,
            restart_s: saving.restart_s,
            goodput: goodput(workload.save_every),
            save_every: workload.save_every,
            best_save_every,
            best_goodput: goodput(best_save_every),
            steps: workload.steps,
            run_s: workload.steps as f64 * step_s / goodput(workload.save_every),
        }
    }

    /// Whether a step fits into a GPU's memory; on a CPU, whose memory is not known, it counts as fitting.
    pub fn fits(&self) -> bool {
        self.gpu_memory_mb.is_none_or(|all| self.memory_mb + Self::CUDA_MB < all)
    }

    /// What CUDA and its libraries keep for themselves: 1 to 2 GB.
    const CUDA_MB: f64 = 1500.0;
}
