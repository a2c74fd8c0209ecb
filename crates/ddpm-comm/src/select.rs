//! Which transport a run's gradients take, agreed among all ranks, and why.

use std::fs;
use std::sync::Arc;

use nccl_rs::{Cuda, UniqueId};
use serde::{Deserialize, Serialize};

use crate::agree;
use crate::collective::Collective;
use crate::error::CommError;
use crate::nccl::Nccl;
use crate::world::World;

/// What the user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// NCCL where every rank has a GPU of its own and computes on it, else the host's.
    Auto,
    /// MPI, or nothing where there is one rank.
    Host,
    /// NCCL, or an error.
    Nccl,
}

/// Where a run keeps its gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// In the memory of the host: the network computes on the CPU.
    Host,
    /// In the memory of a GPU, number so many of those that this process sees.
    Device(usize),
}

/// What was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Nothing: one rank.
    Solo,
    /// MPI.
    Mpi,
    /// NCCL for what is on GPUs, MPI for the rest.
    Nccl,
}

/// The outcome of [`World::select`].
pub struct Selected {
    /// The operations, for all kinds of buffer that the transport reaches.
    pub collective: Arc<dyn Collective>,
    /// What was picked.
    pub transport: Transport,
    /// This rank's GPU, counted among those the process sees; for [`Transport::Nccl`].
    pub device: Option<usize>,
    /// One sentence that says what was picked and why, for the log.
    pub why: String,
}

impl World {
    /// Picks the transport for gradients in `memory`; a collective operation, to be called once.
    ///
    /// # Errors
    /// [`CommError::NoNccl`], on all ranks alike, where NCCL is wanted and some rank cannot have it;
    /// [`CommError::NcclStart`], on this rank, where NCCL fails to connect the ranks.
    pub fn select(&self, wanted: Wanted, memory: Memory) -> Result<Selected, CommError> {
        let host = self.collective();
        let by_host = |why: String| {
            let (transport, how) = match self.size() {
                1 => (Transport::Solo, "are not averaged"),
                _ => (Transport::Mpi, "are averaged by MPI"),
            };
            Selected { collective: Arc::clone(&host), transport, device: None, why: format!("gradients {how}: {why}") }
        };
        match (wanted, memory) {
            (Wanted::Host, _) => return Ok(by_host("as configured".into())),
            (Wanted::Auto, Memory::Host) => return Ok(by_host("the network computes on the CPU".into())),
            (Wanted::Auto, Memory::Device(_)) if self.size() == 1 => return Ok(by_host("there is one rank".into())),
            (Wanted::Nccl, Memory::Host) => {
                let reason = "the network computes on the CPU, whose memory NCCL does not reach. Keep it for GPUs";
                return Err(CommError::NoNccl { reason: reason.into() });
            }
            (Wanted::Auto | Wanted::Nccl, Memory::Device(_)) => {}
        }
        let Memory::Device(device) = memory else { unreachable!("the host's memory was dealt with above") };

        let without = |reason| match wanted {
            Wanted::Auto => Ok(by_host(reason)),
            _ => Err(CommError::NoNccl { reason }),
        };
        // All ranks learn of all obstacles before any of them waits for the others inside NCCL.
        let found = gpu(self, device);
        let obstacle = found.as_ref().err().map_or("", String::as_str);
        let obstacles = host.gather_bytes(obstacle.as_bytes());
        let first = obstacles.iter().position(|obstacle| !obstacle.is_empty());
        let (nccl, cuda, address) = match (first, found) {
            (None, Ok(parts)) => parts,
            (first, _) => {
                let rank = first.unwrap_or_default();
                return without(format!("rank {rank} cannot use NCCL: {}", String::from_utf8_lossy(&obstacles[rank])));
            }
        };
        let addresses = host.gather_bytes(address.as_bytes());
        if let Some((one, other)) = first_twins(&addresses) {
            return without(format!(
                "ranks {one} and {other} compute on one GPU, each on a slice of it (MIG) as it seems, and NCCL joins \
                 whole GPUs only. Give each rank a GPU of its own"
            ));
        }
        let id = share_id(&*host, nccl)?;
        let parts = (nccl, cuda, device);
        let connected = Arc::new(Nccl::connect(Arc::clone(&host), Arc::clone(&self.watch), parts, &id)?);
        let why = format!(
            "gradients are averaged by NCCL {} ({}): each of {} rank(s) has a GPU",
            nccl.version(),
            nccl.path().display(),
            self.size()
        );
        let _ = self.nccl.set(Arc::clone(&connected)); // by contract the first
        Ok(Selected { collective: connected, transport: Transport::Nccl, device: Some(device), why })
    }
}

/// The libraries and where this rank's GPU number `device` is, which no other GPU of the run is; or why it has none.
fn gpu(world: &World, device: usize) -> Result<(&'static nccl_rs::Nccl, &'static Cuda, String), String> {
    let cuda = Cuda::load().map_err(|error| error.to_string())?;
    let gpus = cuda.device_count().map_err(|error| error.to_string())?;
    if device >= gpus {
        return Err(format!(
            "it is to compute on GPU {device}, and sees {gpus} GPU(s) on {}. Start at most one rank per GPU, or widen \
             CUDA_VISIBLE_DEVICES",
            world.host()
        ));
    }
    let nccl = nccl_rs::Nccl::load().map_err(|error| error.to_string())?;
    let bus = cuda.pci_address(device).map_err(|error| error.to_string())?;
    // As NCCL tells machines apart: containers of one may have names of their own.
    let machine = fs::read_to_string(BOOT_ID).unwrap_or_else(|_| world.host().into());
    Ok((nccl, cuda, format!("{} {bus}", machine.trim())))
}

/// A name that the kernel draws when a machine starts.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The first rank whose address another one has, and the first of those.
fn first_twins(addresses: &[Vec<u8>]) -> Option<(usize, usize)> {
    let twin = |one: usize| (one + 1..addresses.len()).find(|&other| addresses[other] == addresses[one]);
    (0..addresses.len()).find_map(|one| Some((one, twin(one)?)))
}

/// Rank 0's id on every rank, or its error on every rank.
fn share_id(host: &dyn Collective, nccl: &nccl_rs::Nccl) -> Result<UniqueId, CommError> {
    let drawn = || match nccl.unique_id() {
        Ok(id) => Ok(id.to_bytes().to_vec()),
        Err(error) => Err(Refused(error.to_string())),
    };
    let refused = |agreed: agree::Agreed<Refused>| CommError::NoNccl {
        reason: format!("rank {} cannot use NCCL: {}", agreed.rank(), agreed.error().0),
    };
    let bytes = agree::on_root(host, drawn).map_err(refused)?;
    Ok(UniqueId::from_bytes(bytes.try_into().expect("rank 0 sends an id")))
}

/// Why rank 0 has no id.
#[derive(Serialize, Deserialize)]
struct Refused(String);

impl From<CommError> for Refused {
    fn from(error: CommError) -> Self {
        Self(error.to_string())
    }
}
