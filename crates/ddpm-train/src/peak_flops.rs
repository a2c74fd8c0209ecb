//! What a rank's GPU can compute at most.

use ddpm_comm::Memory;
use ddpm_config::Settings;
use ddpm_model::Place;
use tch::Kind;
use tch_ext::Gpus;

/// What the GPU at `place` computes at most in `precision`, in TFLOP/s: as `monitor.peak_tflops` says, or by its name. `None`
/// on the CPU, and for a GPU that is not in the table.
pub fn peak_tflops(settings: &Settings, place: Place, precision: Kind) -> Option<f64> {
    let Memory::Device(index) = place.memory else { return None };
    let by_name = || ddpm_plan::peak_tflops(&Gpus::find().ok()?.name(index).ok()?, precision == Kind::BFloat16);
    settings.monitor.peak_tflops.or_else(by_name)
}
