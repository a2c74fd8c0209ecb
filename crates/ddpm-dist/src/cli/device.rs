//! Where a command computes.

use clap::Args;
use ddpm_comm::World;
use ddpm_config::Device;
use ddpm_model::{Failure, resolve_device};

use super::words::device;

/// The device of a network; training takes it from `train.device`.
#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// Where to compute: `cuda` is one GPU per rank; `auto` is `cuda` if there are GPUs, else the CPU.
    #[arg(long, default_value = "auto", value_parser = device())]
    pub device: Device,
}

impl DeviceArgs {
    /// This rank's device, decided by all ranks together.
    pub fn resolve(&self, world: &World) -> Result<tch::Device, Failure> {
        resolve_device(world, self.device, "--device")
    }
}
