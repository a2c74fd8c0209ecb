//! Where and how a command computes.

use clap::Args;
use ddpm_comm::World;
use ddpm_config::{Device, Precision};
use ddpm_model::{Arithmetic, Failure, agree_on_kind, resolve_device};

use super::words::{device, precision};

/// The device and the arithmetic of networks; training takes them from `train.device` and `train.precision`.
#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// Where to compute: `cuda` is one GPU per rank; `auto` is `cuda` if there are GPUs, else the CPU.
    #[arg(long, default_value = "auto", value_parser = device())]
    pub device: Device,
    /// Arithmetic of networks; weights are stored in fp32 in any case.
    #[arg(long, default_value = "fp32", value_parser = precision())]
    pub precision: Precision,
}

impl DeviceArgs {
    /// This rank's device, and the kind of numbers, decided by all ranks together.
    pub fn resolve(&self, world: &World) -> Result<Arithmetic, Failure> {
        let device = resolve_device(world, self.device, "--device")?;
        Ok(Arithmetic {
            device,
            kind: agree_on_kind(world.collective().as_ref(), self.precision, device, "--precision"),
        })
    }
}
