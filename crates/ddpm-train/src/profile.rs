//! A trace of a few steps, for those who ask where their time goes.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ddpm_comm::{Collective, agree};
use ddpm_model::{Error, Failure};
use tch_ext::{Cost, Profiler};

use crate::observer::{Run, TrainObserver};

/// Steps that are recorded.
pub const RECORDED: u64 = 5;
/// Steps of a training before those, in which libtorch still makes its plans and memory grows.
const WARM_UP: u64 = 3;

/// A trace, of which each rank writes a file of its own.
pub struct Profile {
    comm: Arc<dyn Collective>,
    path: PathBuf,
    profiler: Option<Profiler>,
}

impl Profile {
    /// A trace that goes to `path`, or if there are several ranks to [`of_rank`]; all ranks together. Fails now rather
    /// than after the steps if no file can be written there.
    pub fn open(comm: &Arc<dyn Collective>, path: &Path) -> Result<Self, Failure> {
        let path = of_rank(path, comm.rank(), comm.size());
        agree::unanimous(comm.as_ref(), check_writable(&path))?;
        Ok(Self { comm: Arc::clone(comm), path, profiler: None })
    }

    /// Begins to record.
    pub fn start(&mut self) -> Result<(), Failure> {
        self.profiler = Some(Profiler::start()?);
        Ok(())
    }

    /// Ends what [`start`](Self::start) began and writes the file, all ranks together; gives what operators and ranges
    /// cost this rank's training thread, and what its GPU did.
    pub fn save(self) -> Result<Vec<Cost>, Failure> {
        let Some(profiler) = self.profiler else {
            tracing::warn!("the run ends before the steps that would be traced");
            return Ok(Vec::new());
        };
        let saved = profiler.save(&self.path).map_err(|e| Error::file(&self.path, e));
        let costs = agree::unanimous(self.comm.as_ref(), saved)?;
        tracing::info!("a few steps are traced in {}: open it in ui.perfetto.dev", self.path.display());
        Ok(costs)
    }
}

/// Traces a few of the first steps of a training.
pub struct TracedSteps {
    profile: Option<Profile>,
    steps: Range<u64>,
}

impl TracedSteps {
    /// Of a training that has done `done` of `total` steps, which is more, to [`Profile`].
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

/// Which steps of a training are recorded that has done `done` of `total`, which is more: the last one if no more are left.
fn steps(done: u64, total: u64) -> Range<u64> {
    let first = done + WARM_UP.min(total - done - 1);
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
            // What the user has there stays until there is a new trace.
            Ok(there) if there.is_file() => File::options().append(true).open(path).map(drop),
            Ok(there) if there.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(_) => Err(io::Error::other("it is no regular file, which a trace could replace")),
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
        for (done, total, recorded) in [(0, 100, 3..8), (50, 100, 53..58), (0, 6, 3..6), (0, 4, 3..4), (9, 10, 9..10)] {
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
