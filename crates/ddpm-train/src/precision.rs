//! The arithmetic of the network: how `train.precision` and `train.convolutions` are resolved for the ranks'
//! processors.

use ddpm_comm::Collective;
use ddpm_config::{Convolutions, Precision, TrainSettings};
use tch::{Device, Kind};

/// Agrees with all ranks on the tensor kind to compute in; `device` is this rank's. Warns if a processor has to
/// emulate bf16.
pub fn agree_on_precision(comm: &dyn Collective, settings: &TrainSettings, device: Device) -> Kind {
    let kind = precision(comm, settings.precision, device);
    if device == Device::Cpu {
        let winograd = settings.convolutions == Convolutions::Auto;
        let by = if winograd && (kind == Kind::Float || !tch_ext::multiplies_bf16()) { "Winograd" } else { "direct" };
        tracing::info!("arithmetic: {} on the CPU, {} kernels, {by} convolutions", name_of(kind), tch_ext::processor());
    }
    kind
}

/// Sets how this process computes 3x3 convolutions on the CPU.
pub fn choose_convolutions(settings: &TrainSettings) {
    tch_ext::allow_winograd(settings.convolutions == Convolutions::Auto);
}

fn precision(comm: &dyn Collective, wanted: Precision, device: Device) -> Kind {
    if wanted == Precision::Fp32 {
        return Kind::Float;
    }
    let ours = device != Device::Cpu || tch_ext::multiplies_bf16();
    let all = comm.gather_bytes(&[u8::from(ours)]);
    match all.iter().position(|rank| *rank != [1]) {
        None => Kind::BFloat16,
        Some(rank) if wanted == Precision::Auto => {
            tracing::info!("train.precision is auto: fp32, since the CPU of rank {rank} has no bf16 instructions");
            Kind::Float
        }
        Some(rank) => {
            tracing::warn!(
                "the CPU of rank {rank} has no bf16 instructions, so products are computed in fp32 and rounded: this saves no \
                 time and little memory; train.precision = \"auto\" chooses fp32 here"
            );
            Kind::BFloat16
        }
    }
}

fn name_of(kind: Kind) -> &'static str {
    if kind == Kind::BFloat16 { "bf16" } else { "fp32" }
}
