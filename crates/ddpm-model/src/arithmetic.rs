//! Where and in which kind of numbers a network computes, decided by all ranks together.

use ddpm_comm::Collective;
use ddpm_spec::Precision;
use tch::{Device, Kind};

/// Where and in which kind of numbers a network computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arithmetic {
    /// The device of all tensors.
    pub device: Device,
    /// f32, or bf16 for convolutions, attention and what lies between them.
    pub kind: Kind,
}

impl From<Device> for Arithmetic {
    /// On this device in f32.
    fn from(device: Device) -> Self {
        Self { device, kind: Kind::Float }
    }
}

/// Agrees with all ranks on the kind in which they compute; `device` is this rank's, and `option` the key or argument that
/// the user set to `wanted`. Warns if a processor has to emulate bf16.
pub fn agree_on_kind(comm: &dyn Collective, wanted: Precision, device: Device, option: &str) -> Kind {
    if wanted == Precision::Fp32 {
        return Kind::Float;
    }
    let ours = device != Device::Cpu || tch_ext::multiplies_bf16();
    let all = comm.gather_bytes(&[u8::from(ours)]);
    match all.iter().position(|rank| *rank != [1]) {
        None => Kind::BFloat16,
        Some(rank) if wanted == Precision::Auto => {
            tracing::info!("{option} is auto: fp32, since the CPU of rank {rank} has no bf16 instructions");
            Kind::Float
        }
        Some(rank) => {
            tracing::warn!(
                "the CPU of rank {rank} has no bf16 instructions, so products are computed in fp32 and rounded: this saves no \
                 time and little memory; \"auto\" for {option} chooses fp32 here"
            );
            Kind::BFloat16
        }
    }
}

/// The kind's name as users write it.
pub fn kind_name(kind: Kind) -> &'static str {
    if kind == Kind::BFloat16 { "bf16" } else { "fp32" }
}
