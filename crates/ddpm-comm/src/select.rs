//! Choosing the transport for a run's gradients, agreed among all ranks.

use std::fs;
use std::sync::Arc;

use nccl_rs::{Cuda, UniqueId};
use serde::{Deserialize, Serialize};

use crate::agree;
use crate::collective::Collective;
use crate::error::CommError;
use crate::nccl::Nccl;
use crate::world::World;

/// The transport that the user requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// NCCL if every rank computes on its own GPU, otherwise as `Host`.
    Auto,
    /// MPI, or nothing with one rank.
    Host,
    /// NCCL, or an error if it is not available.
    Nccl,
}

/// The memory that holds a run's gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Host memory: the network computes on the CPU.
    Host,
    /// The memory of a GPU, given by its index among those that this process sees.
    Device(usize),
}

/// The transport that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// None: there is one rank.
    Solo,
    /// MPI.
    Mpi,
    /// NCCL for GPU memory, MPI for the rest.
    Nccl,
}

/// The outcome of [`World::select`].
pub struct Selected {
    /// The collectives, for all kinds of buffer that the transport supports.
    pub collective: Arc<dyn Collective>,
    /// The transport that was chosen.
    pub transport: Transport,
    /// This rank's GPU, by its index among those that the process sees; only for [`Transport::Nccl`].
    pub device: Option<usize>,
    /// One sentence for the log: what was chosen and why.
    pub why: String,
}

impl World {
    /// Chooses the transport for gradients in `memory`; a collective operation, to be called once.
    ///
    /// # Errors
    /// [`CommError::NoNccl`], on all ranks, if NCCL is requested but not available on some rank;
    /// [`CommError::NcclStart`], on this rank only, if NCCL fails to connect the ranks.
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
                let reason = "the network computes on the CPU, and NCCL supports only GPU memory. Use it with GPUs";
                return Err(CommError::NoNccl { reason: reason.into() });
            }
            (Wanted::Auto | Wanted::Nccl, Memory::Device(_)) => {}
        }
        let Memory::Device(device) = memory else { unreachable!("host memory was handled above") };

        let without = |reason| match wanted {
            Wanted::Auto => Ok(by_host(reason)),
            _ => Err(CommError::NoNccl { reason }),
        };
        // All ranks exchange their obstacles before any of them waits for the others inside NCCL.
        let found = find_gpu(self, device);
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
        if let Some((one, other)) = first_duplicate(&addresses) {
            return without(format!(
                "ranks {one} and {other} compute on the same GPU, perhaps each on a slice of it (MIG), but NCCL connects \
                 whole GPUs only. Give each rank its own GPU"
            ));
        }
        let id = broadcast_id(&*host, nccl)?;
        let parts = (nccl, cuda, device);
        let connected = Arc::new(Nccl::connect(Arc::clone(&host), Arc::clone(&self.watch), parts, &id)?);
        let why = format!(
            "gradients are averaged by NCCL {} ({}): each of {} rank(s) has a GPU",
            nccl.version(),
            nccl.path().display(),
            self.size()
        );
        let _ = self.nccl.set(Arc::clone(&connected)); // the contract allows only one call
        Ok(Selected { collective: connected, transport: Transport::Nccl, device: Some(device), why })
    }
}

/// The libraries and a unique address of this rank's GPU number `device`, or the reason why NCCL cannot use it.
fn find_gpu(world: &World, device: usize) -> Result<(&'static nccl_rs::Nccl, &'static Cuda, String), String> {
    let cuda = Cuda::load().map_err(|error| error.to_string())?;
    let gpus = cuda.device_count().map_err(|error| error.to_string())?;
    if device >= gpus {
        return Err(format!(
            "it needs GPU {device}, but sees {gpus} GPU(s) on {}. Start at most one rank per GPU, or add GPUs to \
             CUDA_VISIBLE_DEVICES",
            world.host()
        ));
    }
    let nccl = nccl_rs::Nccl::load().map_err(|error| error.to_string())?;
    let bus = cuda.pci_address(device).map_err(|error| error.to_string())?;
    // NCCL distinguishes machines in the same way: containers on one machine may have different host names.
    let machine = fs::read_to_string(BOOT_ID).unwrap_or_else(|_| world.host().into());
    Ok((nccl, cuda, format!("{} {bus}", machine.trim())))
}

/// A random id that the kernel generates at boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The first two ranks that have the same address.
fn first_duplicate(addresses: &[Vec<u8>]) -> Option<(usize, usize)> {
    let duplicate = |one: usize| (one + 1..addresses.len()).find(|&other| addresses[other] == addresses[one]);
    (0..addresses.len()).find_map(|one| Some((one, duplicate(one)?)))
}

/// Generates an id on rank 0 and broadcasts it; every rank returns the id, or rank 0's error.
fn broadcast_id(host: &dyn Collective, nccl: &nccl_rs::Nccl) -> Result<UniqueId, CommError> {
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
