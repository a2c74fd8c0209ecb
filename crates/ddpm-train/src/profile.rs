//! Traces of a few training steps, to find out where their time goes.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ddpm_comm::{Collective, agree};
use ddpm_model::{Error, Failure};
use tch_ext::{Cost, Profiler};

use crate::observer::{Run, TrainObserver};

/// Number of steps recorded.
pub const RECORDED: u64 = 5;
/// Number of warm-up steps before those, in which libtorch still builds its plans and memory grows.
const WARM_UP: u64 = 3;

/// A trace; each rank writes its own file.
pub struct Profile {
    comm: Arc<dyn Collective>,
    path: PathBuf,
    profiler: Option<Profiler>,
}

impl Profile {
    /// Prepares a trace that is written to `path` or, with several ranks, to the path that [`of_rank`] derives from
    /// it; collective over all ranks. If no file can be written there, this fails now rather than after the steps.
    pub fn open(comm: &Arc<dyn Collective>, path: &Path) -> Result<Self, Failure> {
        let path = of_rank(path, comm.rank(), comm.size());
        agree::unanimous(comm.as_ref(), check_writable(&path))?;
        Ok(Self { comm: Arc::clone(comm), path, profiler: None })
    }

    /// Starts recording.
    pub fn start(&mut self) -> Result<(), Failure> {
        self.profiler = Some(Profiler::start()?);
        Ok(())
    }

    /// Stops the recording that [`start`](Self::start) began and writes the file; collective over all ranks. Returns
    /// the cost of operators and ranges on this rank's training thread, and of the work on its GPU.
    pub fn save(self) -> Result<Vec<Cost>, Failure> {
        let Some(profiler) = self.profiler else {
            tracing::warn!("the run ends before the steps to be traced");
            return Ok(Vec::new());
        };
        let saved = profiler.save(&self.path).map_err(|e| Error::file(&self.path, e));
        let costs = agree::unanimous(self.comm.as_ref(), saved)?;
        tracing::info!("the trace of a few steps is in {}; open it in ui.perfetto.dev", self.path.display());
        Ok(costs)
    }
}

/// Traces a few steps near the start of a training run.
pub struct TracedSteps {
    profile: Option<Profile>,
    steps: Range<u64>,
}

impl TracedSteps {
    /// Records to `profile`, in a run that has done `done` of `total` steps.
    pub fn of(profile: Profile, done: u64, total: u64) -> Self {
        Self { profile: Some(profile), steps: steps(done, total) }
    }

    fn save(&mut self) -> Result<(), Failure> {
        self.profile.take().map_or(Ok(()), |profile| profile.save().map(drop))
    }
}

impl TrainObserver for TracedSteps {
    fn before_step(&mut self, run: &mut Run) -> Result<(), Failure> {
        match self.profile.as_mut().filter(|_| run.state.step == self.steps.start) {
            Some(profile) => profile.start(),
            None => Ok(()),
        }
    }

    fn after_step(&mut self, run: &mut Run) -> Result<(), Failure> {
        if run.state.step == self.steps.end { self.save() } else { Ok(()) }
    }

    fn finished(&mut self, _run: &mut Run) -> Result<(), Failure> {
        self.save()
    }
}

/// The steps to record in a run that has done `done` of `total` steps: at least the last one,
/// however few are left.
fn steps(done: u64, total: u64) -> Range<u64> {
    let first = done + WARM_UP.min(total.saturating_sub(done + 1));
    first..total.min(first + RECORDED)
}

/// `trace.json` is `trace.rank1.json` on rank 1 of several.
fn of_rank(path: &Path, rank: usize, size: usize) -> PathBuf {
    if size == 1 {
        return path.to_owned();
    }
    let extension = path.extension().map_or(String::new(), |extension| format!(".{}", extension.display()));
    path.with_extension(format!("rank{rank}{extension}"))
}

fn check_writable(path: &Path) -> Result<(), Error> {
    let check = || -> io::Result<()> {
        match fs::symlink_metadata(path) {
            // An existing file is kept until the new trace replaces it.
            Ok(there) if there.is_file() => File::options().append(true).open(path).map(drop),
            Ok(there) if there.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(_) => Err(io::Error::other("it is no regular file that a trace could replace")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                File::create_new(path)?;
                fs::remove_file(path)
            }
            Err(error) => Err(error),
        }
    };
    check().map_err(|e| Error::file(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_trainings_are_recorded_too() {
        for (done, total, recorded) in
            [(0, 100, 3..8), (50, 100, 53..58), (0, 6, 3..6), (0, 4, 3..4), (9, 10, 9..10), (10, 10, 10..10)]
        {
            assert_eq!(steps(done, total), recorded, "after {done} of {total}");
        }
    }

    #[test]
    fn each_of_several_ranks_has_a_file() {
        let named = |path: &str, size| of_rank(Path::new(path), 1, size).display().to_string();
        assert_eq!(named("out/trace.json", 1), "out/trace.json");
        assert_eq!(named("out/trace.json", 2), "out/trace.rank1.json");
        assert_eq!(named("a.b/trace", 2), "a.b/trace.rank1");
    }
}
