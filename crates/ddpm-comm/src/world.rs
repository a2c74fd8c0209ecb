//! Joining the run and leaving it: who the ranks are, where they run, and the clean end.

use std::sync::{Arc, OnceLock};
use std::time::Duration;
use std::{fs, mem, process};

use ::mpi::environment::Universe;
use ::mpi::topology::SimpleCommunicator;
use ::mpi::traits::Communicator;
use ::mpi::{Threading, initialize_with_threading};

use crate::abort::{abort, end_at_once, set_rank};
use crate::board;
use crate::collective::Collective;
use crate::error::CommError;
use crate::mpi::Mpi;
use crate::nccl::Nccl;
use crate::solo::Solo;
use crate::watch::Watch;

/// This process's place among the ranks of the run.
///
/// One per process. Ends with [`World::finish`]; an MPI world that is dropped instead aborts the
/// run, because its peers would wait for this rank without end.
pub struct World {
    rank: usize,
    size: usize,
    local_rank: usize,
    local_size: usize,
    host: String,
    backend: Backend,
    pub(crate) watch: Arc<Watch>,
    /// Connected by `select`; ended by `finish`.
    pub(crate) nccl: OnceLock<Arc<Nccl>>,
}

enum Backend {
    Solo,
    Mpi { universe: Universe, mpi: Arc<Mpi> },
}

impl World {
    /// Joins the run; the first call on every rank, from the main thread.
    ///
    /// MPI is initialized only if a launcher started the process: `OMPI_COMM_WORLD_SIZE` (Open
    /// MPI's mpirun), `PMI_SIZE`, `PMI_RANK` (Hydra, srun --mpi=pmi2) or `PMIX_RANK` (PRRTE, srun
    /// --mpi=pmix) is set. Otherwise this is a world of one rank.
    ///
    /// # Errors
    /// See [`CommError`]: a launcher and an MPI that do not belong together, too little thread
    /// support, a second call.
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

    /// How many ranks the run has.
    pub fn size(&self) -> usize {
        self.size
    }

    /// This process's number among the ranks of its machine, in `0..local_size`.
    pub fn local_rank(&self) -> usize {
        self.local_rank
    }

    /// How many ranks run on this machine.
    pub fn local_size(&self) -> usize {
        self.local_size
    }

    /// This machine's name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The operations of this world, between hosts. Not to be called after [`World::finish`].
    pub fn collective(&self) -> Arc<dyn Collective> {
        match &self.backend {
            Backend::Solo => Arc::new(Solo),
            Backend::Mpi { mpi, .. } => Arc::clone(mpi) as _,
        }
    }

    /// From now on aborts the run if one collective, or the end in [`World::finish`], lasts
    /// `timeout` or longer: a peer is frozen, or the network is down. The message names the step, the collective or
    /// gradient bucket, and what the other ranks of this machine did last; so does one on a rank of this machine that
    /// was killed, which the launcher ends the run for. Called again, it sets another `timeout`.
    pub fn watch(&self, timeout: Duration) {
        self.watch.start(timeout);
    }

    /// Leaves the run and exits with `code`; every rank calls it, with the same code.
    ///
    /// Waits for the other ranks. All output must be on its way before: see the
    /// [crate's invariants](crate#invariants). With a code other than 0, GPUs may have failed: nothing is asked of them.
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
        if code == 0 { process::exit(0) } else { end_at_once(code) }
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

/// How this process was started.
#[derive(Debug)]
enum Launch {
    Alone,
    /// By a launcher, with so many ranks if it says.
    Ranks(Option<usize>),
}

fn launch(variable: impl Fn(&str) -> Option<String>) -> Result<Launch, CommError> {
    let number = |name| variable(name)?.parse::<usize>().ok();
    // Not SLURM_NTASKS, which a batch script sees too, where no step has begun.
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
        // mpirun inside a Slurm step that started its daemons: mpirun's word counts.
        let nested = [("OMPI_COMM_WORLD_SIZE", "16"), ("SLURM_STEP_NUM_TASKS", "2")];
        assert_eq!(launched(&nested), "Ranks(Some(16))");
    }

    #[test]
    fn slurm_without_an_mpi_interface_is_refused() {
        // The batch script itself, or an interactive shell, is alone.
        assert_eq!(launched(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8")]), "Alone");
        assert_eq!(launched(&[("SLURM_STEP_NUM_TASKS", "1")]), "Alone");
        assert!(launched(&[("SLURM_STEP_NUM_TASKS", "8")]).contains("--mpi=pmix"));
    }
}
