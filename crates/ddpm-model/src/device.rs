//! Decides where each rank computes: on the CPU or on a GPU of its own. All ranks make this decision once, together.

use std::collections::BTreeSet;

use ddpm_comm::{Agreed, Memory, World, agree};
use ddpm_config::{Device as Wanted, TrainSettings};
use serde::{Deserialize, Serialize};
use tch::Device;
use tch_ext::{Gpus, NoGpu};

use crate::error::{Error, Failure};

/// Values of `CUBLAS_WORKSPACE_CONFIG` with which cuBLAS results are bitwise reproducible.
const REPEATABLE_CUBLAS: [&str; 2] = [":4096:8", ":16:8"];

/// The environment variable with which ranks share GPUs if there are too few: for tests on a machine with one GPU.
const SHARE: &str = "DDPM_SHARE_GPU";

/// Where this rank's tensors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The device in libtorch.
    pub device: Device,
    /// The memory from which gradients are exchanged.
    pub memory: Memory,
}

impl Place {
    /// On the CPU.
    pub const CPU: Self = Self { device: Device::Cpu, memory: Memory::Host };

    /// Whether bf16 products are computed natively there rather than emulated.
    pub fn has_bf16(self) -> bool {
        self.is_gpu() || tch_ext::multiplies_bf16()
    }

    /// Whether the place is a GPU.
    pub fn is_gpu(self) -> bool {
        self.memory != Memory::Host
    }
}

/// Advice on how to make GPUs usable, as the beginning of a sentence.
pub fn gpu_remedy(why: &NoGpu) -> &'static str {
    match why {
        NoGpu::NoDriver => "Install NVIDIA's driver",
        NoGpu::CpuOnly(_) => "Install a libtorch with CUDA (DDPM_TORCH=cuda scripts/setup.sh)",
        NoGpu::NoBackend(_) => "Install what is missing (docs/gpu.md)",
        NoGpu::NoneVisible(_) => "Compare with `nvidia-smi -L`, which lists the GPUs that the driver sees",
    }
}

/// What one rank found out about the GPUs of its machine.
#[derive(Debug, Serialize, Deserialize)]
struct Finding {
    host: String,
    /// A unique identifier of each GPU that this rank may use, in this rank's order; or the reason why there are
    /// none.
    gpus: Result<Vec<String>, String>,
    /// Whether it may share its GPU with other ranks.
    shares: bool,
}

/// Decides where this rank trains, by `[train]`, and enables deterministic operations there if `train.deterministic`
/// is set.
pub fn resolve_for_training(world: &World, train: &TrainSettings) -> Result<Place, Failure> {
    let place = place(world, train.device, "train.device")?;
    let or_else = "set train.deterministic to false";
    let allowed = if train.deterministic && place.is_gpu() { check_cublas(or_else) } else { Ok(()) };
    agree::unanimous(world.collective().as_ref(), allowed)?;
    tch_ext::set_deterministic(train.deterministic)?;
    Ok(place)
}

/// Decides on this rank's device for commands that do not train, and enables deterministic operations. `option` is
/// the name of the key or argument that the user set to `wanted`.
pub fn resolve_device(world: &World, wanted: Wanted, option: &str) -> Result<Device, Failure> {
    let place = place(world, wanted, option)?;
    let or_else = format!("set {option} to \"cpu\"");
    let allowed = if place.is_gpu() { check_cublas(&or_else) } else { Ok(()) };
    agree::unanimous(world.collective().as_ref(), allowed)?;
    tch_ext::set_deterministic(true)?;
    Ok(place.device)
}

/// Decides where each rank computes, all ranks together, and logs the result. `option` is the name of the key or
/// argument that the user set to `wanted`.
fn place(world: &World, wanted: Wanted, option: &str) -> Result<Place, Failure> {
    if wanted == Wanted::Cpu {
        return Ok(Place::CPU);
    }
    let gpus = Gpus::find();
    let ours = Finding {
        host: world.host().into(),
        gpus: gpus.as_ref().map(|gpus| names(*gpus, world.host())).map_err(ToString::to_string),
        shares: std::env::var_os(SHARE).is_some_and(|share| share == "1"),
    };
    let all = agree::exchange(world.collective().as_ref(), Some(&ours))?;
    let all: Vec<Finding> = all.into_iter().flatten().collect();
    let own = decide(wanted, option, &all).map_err(|message| Agreed::known_to_all(Error::config(message)))?;
    match (own, gpus) {
        (Some(own), Ok(gpus)) => {
            let (index, host) = (own[world.rank()], world.host());
            let name = all[world.rank()].gpus.as_ref().map_or("", |names| names[index].as_str());
            tracing::info!("computing on GPU {index} of the {} that this rank sees on {host}, {name}", gpus.count());
            let device = gpus.device(index);
            tch_ext::make_current(device)?;
            compile_kernels(world, device)?;
            Ok(Place { device, memory: Memory::Device(index) })
        }
        (_, Err(why)) if why.is_unexpected() => {
            tracing::warn!(
                "there is an NVIDIA driver on {}, but the network computes on the CPU: {why}. {}, or set {option} to \
                 \"cpu\" if that is intended",
                world.host(),
                gpu_remedy(&why)
            );
            Ok(Place::CPU)
        }
        (_, found) => {
            let why = found.err().map_or_else(String::new, |why| format!(": {why}"));
            tracing::info!("computing on the CPU{why}");
            Ok(Place::CPU)
        }
    }
}

/// Compiles the kernels of this rank's GPU. If that fails on any rank, no rank uses them, so that all compute alike.
fn compile_kernels(world: &World, device: Device) -> Result<(), Failure> {
    let ours = tch_ext::compile_gpu_kernels(device).map_err(|error| error.to_string());
    let all = agree::exchange(world.collective().as_ref(), Some(&ours))?;
    let failed = all.iter().enumerate().find_map(|(rank, compiled)| Some((rank, compiled.as_ref()?.as_ref().err()?)));
    if let Some((rank, why)) = failed {
        tch_ext::forget_gpu_kernels();
        tracing::warn!("group norms are composed of libtorch's operations, which is slower; rank {rank}: {why}");
    } else if device.is_cuda() {
        tracing::info!("group norms: fused kernels, compiled for this GPU");
    }
    Ok(())
}

/// A unique identifier of each GPU. If CUDA does not provide any, the names of GPUs in the environment distinguish those
/// of a machine.
fn names(gpus: Gpus, host: &str) -> Vec<String> {
    gpus.identities().unwrap_or_else(|error| {
        tracing::debug!("GPUs are identified by their names in the environment: {error}");
        gpus.labels().into_iter().map(|label| format!("number {label} on {host}")).collect()
    })
}

/// Refuses a cuBLAS configuration whose results are not bitwise reproducible.
fn check_cublas(or_else: &str) -> Result<(), Error> {
    let name = "CUBLAS_WORKSPACE_CONFIG";
    match std::env::var(name) {
        Ok(value) if !REPEATABLE_CUBLAS.contains(&value.as_str()) => Err(Error::config(format!(
            "results must repeat bit for bit, but {name} = \"{value}\" lets cuBLAS give different bits each time. \
             Unset {name}, or {or_else}"
        ))),
        _ => Ok(()),
    }
}

/// The index of each rank's own GPU among those that it sees. `None` if all ranks compute on the CPU, because no rank
/// has a GPU and none was requested.
fn decide(wanted: Wanted, option: &str, all: &[Finding]) -> Result<Option<Vec<usize>>, String> {
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
        (Some(_), None) => Ok(None),
        (None, _) => {
            let seen: Vec<&[String]> = all.iter().map(|found| found.gpus.as_deref().unwrap_or_default()).collect();
            let share = all.iter().all(|found| found.shares);
            let own = (0..seen.len()).map(|rank| own_gpu(rank, &seen, share)).collect::<Result<_, _>>();
            own.map(Some).map_err(|clash| clash.describe(option, all))
        }
    }
}

/// Why it is impossible to give each rank its own GPU.
#[derive(Debug, PartialEq, Eq)]
enum Clash {
    /// `ranks` ranks, including `rank`, see the same `gpus` GPUs, which are too few.
    TooFew { rank: usize, ranks: usize, gpus: usize },
    /// The GPUs that these two ranks see overlap only in part.
    Overlap { one: usize, other: usize },
}

/// The index of the GPU of rank `rank` among those that it sees; `seen` lists the GPUs of all ranks. Ranks that see
/// the same GPUs divide them up in rank order. Ranks that do not must have no GPU in common. This covers whole
/// machines, one GPU per rank (Slurm's `--gpus-per-task`), and mixtures of both. If they `share`, they start again with
/// the first GPU when there are no more.
fn own_gpu(rank: usize, seen: &[&[String]], share: bool) -> Result<usize, Clash> {
    let set = |rank: usize| seen[rank].iter().collect::<BTreeSet<_>>();
    let ours = set(rank);
    let mut alike = Vec::new();
    for other in 0..seen.len() {
        let theirs = set(other);
        if theirs == ours {
            alike.push(other);
        } else if !theirs.is_disjoint(&ours) {
            return Err(Clash::Overlap { one: rank.min(other), other: rank.max(other) });
        }
    }
    let before = alike.iter().filter(|other| **other < rank).count();
    let place = if share && !ours.is_empty() { before % ours.len() } else { before };
    // In the order of the first such rank: the others may see the same GPUs in a different order.
    let own = seen[alike[0]].get(place);
    let found = own.and_then(|own| seen[rank].iter().position(|gpu| gpu == own));
    found.ok_or(Clash::TooFew { rank, ranks: alike.len(), gpus: ours.len() })
}

impl Clash {
    fn describe(&self, option: &str, all: &[Finding]) -> String {
        match *self {
            Self::TooFew { rank, ranks, gpus } => format!(
                "{ranks} rank(s) on {} see the same {gpus} GPU(s), and each needs one of its own. Start at most {gpus} \
                 there, let CUDA_VISIBLE_DEVICES name more, or set {option} to \"cpu\"",
                all[rank].host
            ),
            Self::Overlap { one, other } => format!(
                "ranks {one} and {other} on {} see overlapping but different sets of GPUs, so it is not clear which rank \
                 uses which GPU. Let all ranks of a machine see the same GPUs (Slurm: --gpus-per-node) or each its \
                 own (--gpus-per-task), or set {option} to \"cpu\"",
                all[one].host
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Findings of ranks that see these GPUs, with two ranks per machine.
    fn ranks(gpus: &[Result<&str, &str>]) -> Vec<Finding> {
        let split = |names: &str| names.split_whitespace().map(str::to_owned).collect();
        let finding = |(rank, gpus): (usize, &Result<&str, &str>)| Finding {
            host: format!("node{}", rank / 2),
            gpus: gpus.map(split).map_err(Into::into),
            shares: false,
        };
        gpus.iter().enumerate().map(finding).collect()
    }

    fn decided(gpus: &[&str]) -> Result<Option<Vec<usize>>, String> {
        decide(Wanted::Auto, "train.device", &ranks(&gpus.iter().map(|gpus| Ok(*gpus)).collect::<Vec<_>>()))
    }

    #[test]
    fn each_rank_has_a_gpu_of_its_own() {
        for (what, gpus, own) in [
            ("whole machines", ["a b", "a b", "c d e", "c d e"], [0, 1, 0, 1]),
            ("a GPU for each task", ["a", "b", "c", "d"], [0, 0, 0, 0]),
            ("more than one for each", ["a b", "c d", "e f", "g h"], [0, 0, 0, 0]),
            ("groups", ["a b", "c d", "a b", "c d"], [0, 0, 1, 1]),
            ("the same in another order", ["a b", "b a", "c", "d"], [0, 0, 0, 0]),
            ("slices of one", ["MIG-1", "MIG-2", "MIG-3", "MIG-4"], [0, 0, 0, 0]),
        ] {
            assert_eq!(decided(&gpus), Ok(Some(own.to_vec())), "{what}");
        }
        let few = decided(&["a b", "a b", "c", "c"]).unwrap_err();
        assert!(few.starts_with("2 rank(s) on node1 see the same 1 GPU(s), and each needs one of its own. "), "{few}");
        assert!(few.ends_with("or set train.device to \"cpu\""), "{few}");
        let sharing = ["a b", "a b", "a b", "c"].map(Ok);
        let sharing = ranks(&sharing).into_iter().map(|found| Finding { shares: true, ..found }).collect::<Vec<_>>();
        assert_eq!(decide(Wanted::Auto, "train.device", &sharing), Ok(Some(vec![0, 1, 0, 0])));
        let overlap = decided(&["a b", "b c"]).unwrap_err();
        assert!(overlap.starts_with("ranks 0 and 1 on node0 see overlapping but different sets "), "{overlap}");
        assert!(overlap.contains("--gpus-per-task"), "{overlap}");
    }

    #[test]
    fn all_ranks_compute_on_gpus_or_none() {
        let none = Err("no driver");
        assert_eq!(decide(Wanted::Auto, "train.device", &ranks(&[none, none])), Ok(None));
        assert_eq!(decide(Wanted::Cuda, "train.device", &ranks(&[Ok("a b"), Ok("a b")])), Ok(Some(vec![0, 1])));
        let asked = decide(Wanted::Cuda, "--device", &ranks(&[Ok("a b"), none])).unwrap_err();
        assert!(asked.starts_with("--device is \"cuda\", but rank 1 on node0 has no GPU: no driver. "), "{asked}");
        let mixed = decide(Wanted::Auto, "train.device", &ranks(&[none, none, Ok("a b"), Ok("a b")])).unwrap_err();
        assert!(mixed.starts_with("rank 2 on node1 has a GPU, but rank 0 on node0 has none: no driver. "), "{mixed}");
    }
}
