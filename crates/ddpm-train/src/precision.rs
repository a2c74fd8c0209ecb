//! The arithmetic of the network: how `train.precision` and `train.convolutions` are resolved for the ranks'
//! processors.

use ddpm_comm::Collective;
use ddpm_config::{Convolutions, TrainSettings};
use ddpm_model::{agree_on_kind, kind_name};
use tch::{Device, Kind, Tensor};

/// Agrees with all ranks on the tensor kind to compute in; `device` is this rank's. Warns if a processor has to
/// emulate bf16.
pub fn agree_on_precision(comm: &dyn Collective, settings: &TrainSettings, device: Device) -> Kind {
    let kind = agree_on_kind(comm, settings.precision, device, "train.precision");
    if device == Device::Cpu {
        let winograd = tch_ext::winograd_planes_for(&Tensor::empty([0], (kind, device)), 16, 16);
        let by = if winograd.is_some() { "Winograd" } else { "direct" };
        tracing::info!(
            "arithmetic: {} on the CPU, {} kernels, {by} convolutions",
            kind_name(kind),
            tch_ext::processor()
        );
    }
    kind
}

/// Sets how this process computes 3x3 convolutions on the CPU.
pub fn choose_convolutions(settings: &TrainSettings) {
    tch_ext::allow_winograd(settings.convolutions == Convolutions::Auto);
}
