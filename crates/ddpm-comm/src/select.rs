//! Which transport a run's gradients take, agreed among all ranks, and why.

use std::sync::Arc;

use nccl_rs::{Cuda, UniqueId};

use crate::nccl::Nccl;
use crate::{Collective, CommError, Verdict, Vote, World};

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
    /// In the memory of a GPU.
    Device,
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
    /// GPU number [`local_rank`](World::local_rank) is the rank's; `CUDA_VISIBLE_DEVICES` says which GPUs there are.
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
            (Wanted::Auto, Memory::Device) if self.size() == 1 => return Ok(by_host("there is one rank".into())),
            (Wanted::Nccl, Memory::Host) => {
                let reason = "the network computes on the CPU, whose memory NCCL does not reach. Keep it for GPUs";
                return Err(CommError::NoNccl { reason: reason.into() });
            }
            (Wanted::Auto | Wanted::Nccl, Memory::Device) => {}
        }

        // All ranks learn of all obstacles before any of them waits for the others inside NCCL.
        let found = gpu(self);
        let obstacle = found.as_ref().err().map_or("", String::as_str);
        let obstacles = host.gather_bytes(obstacle.as_bytes());
        let first = obstacles.iter().position(|obstacle| !obstacle.is_empty());
        let parts = match (first, found) {
            (None, Ok(parts)) => parts,
            (first, _) => {
                let rank = first.unwrap_or_default();
                let reason = format!("rank {rank} cannot use NCCL: {}", String::from_utf8_lossy(&obstacles[rank]));
                return if wanted == Wanted::Auto { Ok(by_host(reason)) } else { Err(CommError::NoNccl { reason }) };
            }
        };
        let (nccl, _, device) = parts;
        let id = share_id(&*host, nccl)?;
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

/// The libraries and this rank's GPU, or why it has none.
fn gpu(world: &World) -> Result<(&'static nccl_rs::Nccl, &'static Cuda, usize), String> {
    let cuda = Cuda::load().map_err(|error| error.to_string())?;
    let (ranks, gpus) = (world.local_size(), cuda.device_count().map_err(|error| error.to_string())?);
    if gpus < ranks {
        return Err(format!(
            "{ranks} rank(s) on {} see {gpus} GPU(s). Start at most one rank per GPU, or widen CUDA_VISIBLE_DEVICES",
            world.host()
        ));
    }
    let nccl = nccl_rs::Nccl::load().map_err(|error| error.to_string())?;
    Ok((nccl, cuda, world.local_rank()))
}

/// Rank 0's id on every rank, or its error on every rank.
fn share_id(host: &dyn Collective, nccl: &nccl_rs::Nccl) -> Result<UniqueId, CommError> {
    let drawn = if host.rank() == 0 { nccl.unique_id() } else { Ok(UniqueId::from_bytes([0; UniqueId::SIZE])) };
    let vote = drawn.as_ref().map_or_else(|error| Vote::Failed(error.to_string()), |_| Vote::Ok);
    match (host.vote(vote), drawn) {
        (Verdict::Failed { rank, message }, _) => {
            Err(CommError::NoNccl { reason: format!("rank {rank} cannot use NCCL: {message}") })
        }
        (_, Err(error)) => Err(error.into()),
        (_, Ok(drawn)) => {
            let bytes = host.broadcast_bytes(drawn.to_bytes().to_vec(), 0);
            let bytes = bytes.try_into().expect("rank 0 sends an id");
            Ok(UniqueId::from_bytes(bytes))
        }
    }
}
