//! How much of a job's training counts: the steps that `metrics.jsonl` shows in the end, and those that it showed until
//! a restart computed them again.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The tally of a run, kept from reading to reading of its `metrics.jsonl`.
#[derive(Debug)]
pub(crate) struct Tally {
    file: PathBuf,
    lines: BTreeMap<u64, Line>,
    lost: Training,
}

/// An amount of training.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Training {
    pub steps: u64,
    pub seconds: f64,
}

/// A line of the file.
#[derive(Debug)]
struct Line {
    /// What was trained since the line before.
    training: Training,
    /// A repeated step has other times, so its line differs.
    digest: u64,
    /// Whether it was written since the tally began.
    is_ours: bool,
}

/// The fields of a line that are read.
#[derive(Deserialize)]
struct Fields {
    step: u64,
    images: u64,
    images_per_s: Option<f64>,
}

impl Tally {
    /// Begins; what the file shows already does not count.
    pub fn begin(file: PathBuf) -> Self {
        let lines = read(&file, |_, _| false).unwrap_or_default();
        Self { file, lines, lost: Training::default() }
    }

    /// Reads the file again, after the job has ended. If it cannot be read, nothing changes.
    pub fn update(&mut self) {
        let old = &self.lines;
        let is_ours = |step: u64, digest: u64| old.get(&step).is_none_or(|line| line.is_ours || line.digest != digest);
        let Some(new) = read(&self.file, is_ours) else { return };
        let is_lost = |(step, line): &(&u64, &Line)| {
            line.is_ours && new.get(*step).is_none_or(|again| again.digest != line.digest)
        };
        let lost = sum(old.iter().filter(is_lost).map(|(_, line)| line.training));
        self.lost = sum([self.lost, lost].into_iter());
        self.lines = new;
    }

    /// The last step that the file shows.
    pub fn step(&self) -> Option<u64> {
        self.lines.last_key_value().map(|(step, _)| *step)
    }

    /// What was trained since the tally began, and was not computed again.
    pub fn kept(&self) -> Training {
        sum(self.lines.values().filter(|line| line.is_ours).map(|line| line.training))
    }

    /// What was trained since the tally began, and is gone or was computed again.
    pub fn lost(&self) -> Training {
        self.lost
    }
}

fn sum(all: impl Iterator<Item = Training>) -> Training {
    all.fold(Training::default(), |sum, one| Training {
        steps: sum.steps + one.steps,
        seconds: sum.seconds + one.seconds,
    })
}

/// The lines of the file by step; `is_ours` gets the step and digest of each.
fn read(file: &Path, is_ours: impl Fn(u64, u64) -> bool) -> Option<BTreeMap<u64, Line>> {
    let bytes = fs::read(file).ok()?;
    let mut lines = BTreeMap::new();
    let (mut step, mut images) = (0, 0);
    for line in bytes.split(|&byte| byte == b'\n') {
        // A kill may have left the last line incomplete.
        let Ok(fields) = serde_json::from_slice::<Fields>(line) else { continue };
        let mut hasher = DefaultHasher::new();
        line.hash(&mut hasher);
        let digest = hasher.finish();
        let rate = fields.images_per_s.filter(|&rate| rate > 0.0);
        let training = Training {
            steps: fields.step.saturating_sub(step),
            seconds: rate.map_or(0.0, |rate| fields.images.saturating_sub(images) as f64 / rate),
        };
        (step, images) = (fields.step, fields.images);
        lines.insert(step, Line { training, digest, is_ours: is_ours(step, digest) });
    }
    Some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of lines (step, images per second), with 8 images per step.
    fn write(file: &Path, lines: &[(u64, f64)]) {
        let line = |&(step, rate): &(u64, f64)| {
            format!("{{\"step\":{step},\"images\":{},\"loss\":null,\"images_per_s\":{rate}}}\n", step * 8)
        };
        fs::write(file, lines.iter().map(line).collect::<String>()).unwrap();
    }

    #[test]
    fn steps_that_were_computed_again_are_lost() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("metrics.jsonl");
        let amount = |steps, seconds| Training { steps, seconds };
        // Of an earlier job: two steps.
        write(&file, &[(1, 8.0), (2, 8.0)]);
        let mut tally = Tally::begin(file.clone());
        assert_eq!((tally.step(), tally.kept()), (Some(2), amount(0, 0.0)));
        // Step 2 again, after a checkpoint at step 1, and on to 4, each in two seconds.
        write(&file, &[(1, 8.0), (2, 4.0), (3, 4.0), (4, 4.0)]);
        tally.update();
        assert_eq!((tally.step(), tally.kept(), tally.lost()), (Some(4), amount(3, 6.0), amount(0, 0.0)));
        // Nothing new.
        tally.update();
        assert_eq!((tally.kept(), tally.lost()), (amount(3, 6.0), amount(0, 0.0)));
        // Resumed from step 2: steps 3 and 4 once more, in one second each.
        write(&file, &[(1, 8.0), (2, 4.0), (3, 8.0), (4, 8.1), (5, 8.0)]);
        tally.update();
        assert_eq!(tally.lost(), amount(2, 4.0));
        assert_eq!(tally.kept().steps, 4);
        // Resumed from step 3, and killed before the next line was complete.
        write(&file, &[(1, 8.0), (2, 4.0), (3, 8.0)]);
        fs::write(&file, [fs::read(&file).unwrap(), b"{\"step\":4,\"im".to_vec()].concat()).unwrap();
        tally.update();
        assert_eq!((tally.lost().steps, tally.kept()), (4, amount(2, 3.0)));
        fs::remove_file(&file).unwrap();
        tally.update();
        assert_eq!(tally.step(), Some(3));
    }

    #[test]
    fn a_run_without_metrics_has_trained_nothing() {
        let mut tally = Tally::begin("/nowhere/metrics.jsonl".into());
        tally.update();
        assert_eq!((tally.step(), tally.kept()), (None, Training::default()));
    }
}
