//! How much of its GPU a rank uses: memory, FLOP/s, and what NVML measures.

use ddpm_comm::Memory;
use ddpm_model::Error;
use ddpm_telemetry::Metrics;
use nccl_rs::Sensors;
use tch_ext::{GpuMemory, Gpus};

use crate::observer::Run;
use crate::peak_flops::peak_tflops;

/// The GPU of this rank, and what a step has it compute.
pub struct GpuUsage {
    /// Of training on one image.
    flops: f64,
    ranks: usize,
    peak_tflops: Option<f64>,
    sensors: Option<Sensors>,
}

impl GpuUsage {
    /// The usage of this rank's GPU in a run; `None` if it computes on the CPU.
    pub fn of(run: &Run) -> Result<Option<Self>, Error> {
        let Memory::Device(index) = run.place.memory else { return Ok(None) };
        let Ok(gpus) = Gpus::find() else { return Ok(None) };
        let sensors = gpus.identities().and_then(|uuids| Sensors::of(&uuids[index]));
        let sensors = sensors.inspect_err(|error| tracing::debug!("no power and utilisation of the GPU: {error}")).ok();
        Ok(Some(Self {
            flops: run.task.flops(&run.state.weights)?,
            ranks: run.comm.size(),
            peak_tflops: peak_tflops(run.settings, run.place, run.task.network.precision()),
            sensors,
        }))
    }

    /// Adds the metrics at a speed of all ranks together.
    pub fn report(&self, metrics: &mut Metrics, run: &Run, images_per_s: f64) {
        let tflops = self.flops * images_per_s / self.ranks as f64 / 1e12;
        metrics.real("tflops", "speed/tflops", tflops);
        metrics.optional("mfu", "speed/mfu", self.peak_tflops.map(|peak| tflops / peak));
        let sensors = self.sensors.as_ref();
        metrics.optional("gpu_power_w", "gpu/power_w", sensors.and_then(Sensors::power_w));
        metrics.optional("gpu_utilisation", "gpu/utilisation", sensors.and_then(Sensors::utilisation));
        let used = sensors.and_then(Sensors::used_memory);
        metrics.optional("gpu_used_mb", "memory/gpu_used_mb", used.map(|bytes| bytes as f64 / 1e6));
        let peak = GpuMemory::peak(run.place.device).ok().flatten();
        let mb = |bytes: fn(GpuMemory) -> i64| peak.map(|peak| bytes(peak) as f64 / 1e6);
        metrics.optional("gpu_peak_mb", "memory/gpu_peak_mb", mb(|peak| peak.allocated));
        metrics.optional("gpu_reserved_mb", "memory/gpu_reserved_mb", mb(|peak| peak.reserved));
    }
}
