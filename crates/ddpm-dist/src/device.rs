//! Where a rank computes: on the CPU, or on a GPU of its own. Decided once, by all ranks alike.

use ddpm_comm::{Memory, World};
use ddpm_config::Device as Wanted;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};
use tch_ext::Gpus;

use crate::cli::DeviceArgs;
use crate::failure::Failure;

/// Where this rank's tensors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// As libtorch names it.
    pub device: Device,
    /// As the exchange of gradients sees it.
    pub memory: Memory,
}

impl Place {
    /// On the CPU.
    pub const CPU: Self = Self { device: Device::Cpu, memory: Memory::Host };
}

/// What one rank knows of the GPUs of its machine.
#[derive(Debug, Serialize, Deserialize)]
struct Finding {
    host: String,
    /// Ranks on that machine.
    ranks: usize,
    /// GPUs that this rank may use, or why there are none.
    gpus: Result<usize, String>,
}

/// Decides where each rank computes, all ranks together, and says so in the log. `option` is the key or argument that was
/// set to `wanted`. Rank number r of a machine gets its r-th GPU of those that `CUDA_VISIBLE_DEVICES` leaves.
pub fn place(world: &World, wanted: Wanted, option: &str) -> Result<Place, Failure> {
    if wanted == Wanted::Cpu {
        return Ok(Place::CPU);
    }
    let gpus = Gpus::find();
    let ours = Finding {
        host: world.host().into(),
        ranks: world.local_size(),
        gpus: gpus.as_ref().map(|gpus| gpus.count()).map_err(ToString::to_string),
    };
    let ours = serde_json::to_vec(&ours).map_err(Failure::internal)?;
    let all = world.collective().gather_bytes(&ours);
    let all: Vec<Finding> =
        all.iter().map(|bytes| serde_json::from_slice(bytes).map_err(Failure::internal)).collect::<Result<_, _>>()?;
    let on_gpus = decide(wanted, option, &all).map_err(|message| Failure::usage(message).everywhere())?;
    match (on_gpus, gpus) {
        (true, Ok(gpus)) => {
            let index = world.local_rank();
            tracing::info!("computing on GPU {index} of the {} on {}", gpus.count(), world.host());
            Ok(Place { device: gpus.device(index), memory: Memory::Device })
        }
        (_, found) => {
            let why = found.err().map_or_else(String::new, |why| format!(": {why}"));
            tracing::info!("computing on the CPU{why}");
            Ok(Place::CPU)
        }
    }
}

/// This rank's device in a command that trains nothing.
pub fn place_as_typed(world: &World, typed: &DeviceArgs) -> Result<Device, Failure> {
    place(world, typed.device.into(), "--device").map(|place| place.device)
}

/// `tensor` on `device`, as far as the next operations there see; the host need not wait for the copy.
pub fn upload(tensor: &Tensor, device: Device) -> Tensor {
    tensor.to_device_(device, tensor.kind(), true, false)
}

/// Whether all ranks compute on GPUs; none does where none has one, unless GPUs are asked for.
fn decide(wanted: Wanted, option: &str, all: &[Finding]) -> Result<bool, String> {
    let without =
        all.iter().enumerate().find_map(|(rank, found)| Some((rank, &found.host, found.gpus.as_ref().err()?)));
    let with = all.iter().enumerate().find(|(_, found)| found.gpus.is_ok());
    match (without, with) {
        (Some((rank, host, why)), _) if wanted == Wanted::Cuda => Err(format!(
            "{option} is \"cuda\", but rank {rank} on {host} has no GPU: {why}. Install what is missing (docs/gpu.md), or \
             set {option} to \"cpu\""
        )),
        (Some((rank, host, why)), Some((other, found))) => Err(format!(
            "rank {other} on {} has a GPU, but rank {rank} on {host} has none: {why}. Give each rank one, or set {option} \
             to \"cpu\"",
            found.host
        )),
        (Some(_), None) => Ok(false),
        (None, _) => {
            let short = all.iter().find_map(|found| {
                let gpus = *found.gpus.as_ref().ok()?;
                (found.ranks > gpus).then_some((found.ranks, &found.host, gpus))
            });
            let Some((ranks, host, gpus)) = short else { return Ok(true) };
            Err(format!(
                "{ranks} ranks on {host} see {gpus} GPU(s), and each needs one of its own. Start at most {gpus} there, let \
                 CUDA_VISIBLE_DEVICES name more, or set {option} to \"cpu\""
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranks(gpus: &[Result<usize, &str>]) -> Vec<Finding> {
        let finding = |(rank, gpus): (usize, &Result<usize, &str>)| Finding {
            host: format!("node{}", rank / 2),
            ranks: 2,
            gpus: gpus.map_err(Into::into),
        };
        gpus.iter().enumerate().map(finding).collect()
    }

    #[test]
    fn all_ranks_compute_on_gpus_or_none() {
        let none = Err("no driver");
        for wanted in [Wanted::Auto, Wanted::Cuda] {
            assert_eq!(decide(wanted, "train.device", &ranks(&[Ok(2), Ok(2), Ok(4), Ok(4)])), Ok(true));
        }
        assert_eq!(decide(Wanted::Auto, "train.device", &ranks(&[none, none])), Ok(false));

        let asked = decide(Wanted::Cuda, "--device", &ranks(&[Ok(2), none])).unwrap_err();
        assert!(asked.starts_with("--device is \"cuda\", but rank 1 on node0 has no GPU: no driver. "), "{asked}");
        let mixed = decide(Wanted::Auto, "train.device", &ranks(&[none, none, Ok(2), Ok(2)])).unwrap_err();
        assert!(mixed.starts_with("rank 2 on node1 has a GPU, but rank 0 on node0 has none: no driver. "), "{mixed}");
        for wanted in [Wanted::Auto, Wanted::Cuda] {
            let short = decide(wanted, "train.device", &ranks(&[Ok(2), Ok(2), Ok(1), Ok(1)])).unwrap_err();
            assert!(short.starts_with("2 ranks on node1 see 1 GPU(s), and each needs one of its own. "), "{short}");
            assert!(short.ends_with("or set train.device to \"cpu\""), "{short}");
        }
    }
}
