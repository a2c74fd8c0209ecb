//! Joining and leaving the run: the ranks, their machines, and the orderly exit.

use std::sync::{Arc, OnceLock};
use std::time::Duration;
use std::{fs, mem, process};

use ::mpi::environment::Universe;
use ::mpi::topology::SimpleCommunicator;
use ::mpi::traits::Communicator;
use ::mpi::{Threading, initialize_with_threading};

use crate::abort::{abort, exit_flushed, set_rank};
use crate::board;
use crate::collective::Collective;
use crate::error::CommError;
use crate::mpi::Mpi;
use crate::nccl::Nccl;
use crate::solo::Solo;
use crate::watch::Watch;

/// This process's membership in the run.
///
/// One per process. End it with [`World::finish`]; an MPI world that is dropped instead aborts the run, because the
/// other ranks would wait for this one forever.
pub struct World {
    rank: usize,
    size: usize,
    local_rank: usize,
    local_size: usize,
    host: String,
    backend: Backend,
    pub(crate) watch: Arc<Watch>,
    /// Created by `select`, shut down by `finish`.
    pub(crate) nccl: OnceLock<Arc<Nccl>>,
}

enum Backend {
    Solo,
    Mpi { universe: Universe, mpi: Arc<Mpi> },
}

impl World {
    /// Joins the run; must be the first call on every rank, from the main thread.
    ///
    /// MPI is initialized only if a launcher started the process: `OMPI_COMM_WORLD_SIZE` (Open MPI's mpirun),
    /// `PMI_SIZE`, `PMI_RANK` (Hydra, srun --mpi=pmi2) or `PMIX_RANK` (PRRTE, srun --mpi=pmix) is set. Otherwise this
    /// is a world with one rank.
    ///
    /// # Errors
    /// See [`CommError`]: a launcher that does not match the MPI library, insufficient thread support, a second call.
    pub fn init() -> Result<Self, CommError> {
        let host = fs::read_to_string("/proc/sys/kernel/hostname")
            .map_or_else(|_| "localhost".into(), |name| name.trim().into());
        let expected = match launch(|name| std::env::var(name).ok())? {
            Launch::Ranks(expected) => expected,
            Launch::Alone => {
                let (watch, nccl) = Default::default();
                return Ok(Self {
                    rank: 0,
                    size: 1,
                    local_rank: 0,
                    local_size: 1,
                    host,
                    backend: Backend::Solo,
                    watch,
                    nccl,
                });
            }
        };
        let (universe, provided) =
            initialize_with_threading(Threading::Multiple).ok_or(CommError::AlreadyInitialized)?;
        if provided < Threading::Serialized {
            return Err(CommError::Threads { provided });
        }
        let watch = Arc::<Watch>::default();
        let mpi = Arc::new(Mpi::new(Arc::clone(&watch)));
        let (rank, size) = (mpi.rank(), mpi.size());
        if let Some(expected) = expected.filter(|&expected| expected != size) {
            return Err(CommError::OtherLauncher { expected, found: size });
        }
        set_rank(rank);
        let neighbours = SimpleCommunicator::world().split_shared(rank as i32);
        board::join(&neighbours, rank);
        Ok(Self {
            rank,
            size,
            local_rank: neighbours.rank() as usize,
            local_size: neighbours.size() as usize,
            host,
            backend: Backend::Mpi { universe, mpi },
            watch,
            nccl: OnceLock::new(),
        })
    }

    /// This process's number, in `0..size`.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The number of ranks in the run.
    pub fn size(&self) -> usize {
        self.size
    }

    /// This process's number among the ranks of its machine, in `0..local_size`.
    pub fn local_rank(&self) -> usize {
        self.local_rank
    }

    /// The number of ranks on this machine.
    pub fn local_size(&self) -> usize {
        self.local_size
    }

    /// This machine's name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The collectives of this world, on host memory. Must not be called after [`World::finish`].
    pub fn collective(&self) -> Arc<dyn Collective> {
        match &self.backend {
            Backend::Solo => Arc::new(Solo),
            Backend::Mpi { mpi, .. } => Arc::clone(mpi) as _,
        }
    }

    /// Starts the watchdog: it aborts the run if one collective, or the exit in [`World::finish`], takes `timeout` or
    /// longer because a peer is frozen or the network is down. The message names the step, the collective or gradient
    /// bucket, and what the other ranks of this machine did last. It also reports a rank of this machine that was
    /// killed, before the launcher ends the run. Calling it again changes the `timeout`.
    pub fn watch(&self, timeout: Duration) {
        self.watch.start(timeout);
    }

    /// Leaves the run and exits with `code`; every rank must call it, with the same code.
    ///
    /// Waits for the other ranks. All output must have been written before: see the [crate's
    /// invariants](crate#invariants). With a code other than 0, GPUs may have failed, so they are not used any more.
    pub fn finish(mut self, code: i32) -> ! {
        let watch = Arc::clone(&self.watch);
        let _entered = watch.leave();
        if code == 0
            && let Some(nccl) = self.nccl.take()
        {
            nccl.finish();
        }
        if let Backend::Mpi { universe, .. } = mem::replace(&mut self.backend, Backend::Solo) {
            drop(universe); // MPI_Finalize
        }
        if code == 0 { process::exit(0) } else { exit_flushed(code) }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Backend::Mpi { .. } = self.backend {
            // Dropping the universe would wait in MPI_Finalize for peers that wait for this rank.
            abort(1, "the rank left its run without World::finish. Agree with the other ranks or abort before leaving");
        }
    }
}

/// Whether a launcher of MPI programs started this process as one of its ranks.
pub fn is_rank() -> bool {
    !matches!(launch(|name| std::env::var(name).ok()), Ok(Launch::Alone))
}

/// How this process was started.
#[derive(Debug)]
enum Launch {
    Alone,
    /// By a launcher, with the number of ranks if it is known.
    Ranks(Option<usize>),
}

fn launch(variable: impl Fn(&str) -> Option<String>) -> Result<Launch, CommError> {
    let number = |name| variable(name)?.parse::<usize>().ok();
    // Not SLURM_NTASKS, which is also set in a batch script, before any step has started.
    let tasks = number("SLURM_STEP_NUM_TASKS");
    if let Some(size) = number("OMPI_COMM_WORLD_SIZE").or_else(|| number("PMI_SIZE")) {
        Ok(Launch::Ranks(Some(size)))
    } else if variable("PMIX_RANK").is_some() || variable("PMI_RANK").is_some() {
        Ok(Launch::Ranks(tasks))
    } else {
        match tasks {
            Some(tasks) if tasks > 1 => Err(CommError::NoPmi { tasks }),
            _ => Ok(Launch::Alone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launched(variables: &[(&str, &str)]) -> String {
        let variable = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name)?;
            Some(found.1.to_owned())
        };
        match launch(variable) {
            Ok(launch) => format!("{launch:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn launchers_are_recognised_by_their_variables() {
        assert_eq!(launched(&[]), "Alone");
        assert_eq!(launched(&[("OMPI_COMM_WORLD_SIZE", "4")]), "Ranks(Some(4))");
        assert_eq!(launched(&[("PMI_RANK", "1"), ("PMI_SIZE", "2")]), "Ranks(Some(2))");
        assert_eq!(launched(&[("PMIX_RANK", "0")]), "Ranks(None)");
        let pmix = [("PMIX_RANK", "0"), ("SLURM_STEP_NUM_TASKS", "8")];
        assert_eq!(launched(&pmix), "Ranks(Some(8))");
        // mpirun inside a Slurm step that started its daemons: mpirun takes precedence.
        let nested = [("OMPI_COMM_WORLD_SIZE", "16"), ("SLURM_STEP_NUM_TASKS", "2")];
        assert_eq!(launched(&nested), "Ranks(Some(16))");
    }

    #[test]
    fn slurm_without_an_mpi_interface_is_refused() {
        // The batch script itself, or an interactive shell, is a single rank.
        assert_eq!(launched(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8")]), "Alone");
        assert_eq!(launched(&[("SLURM_STEP_NUM_TASKS", "1")]), "Alone");
        assert!(launched(&[("SLURM_STEP_NUM_TASKS", "8")]).contains("--mpi=pmix"));
    }
}
