//! `metrics.jsonl`: one JSON object per log step. Each step appears once, no matter how often the run was resumed.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::best_effort::BestEffort;
use crate::file::write_atomic;

/// The metrics of one log step, in the order in which they were added.
///
/// Each metric has a key in `metrics.jsonl` and a tag in TensorBoard. A value that is not finite is `null` in the
/// file. An absent value is `null` in the file and not shown in TensorBoard.
#[derive(Clone, Debug)]
pub struct Metrics {
    step: u64,
    figures: Vec<Figure>,
}

#[derive(Clone, Debug)]
struct Figure {
    key: Cow<'static, str>,
    tag: Cow<'static, str>,
    value: Quantity,
}

#[derive(Clone, Debug)]
enum Quantity {
    Text(String),
    Count(u64),
    Real(f64),
    Absent,
}

impl Metrics {
    /// An empty set of metrics for step `step`.
    pub fn at(step: u64) -> Self {
        Self { step, figures: Vec::new() }
    }

    /// The step: the number of updates since the start of the run.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Adds an integer.
    pub fn count(&mut self, key: &'static str, tag: &'static str, value: u64) {
        self.push(key.into(), tag.into(), Quantity::Count(value));
    }

    /// Adds a real number.
    pub fn real(&mut self, key: &'static str, tag: &'static str, value: f64) {
        self.push(key.into(), tag.into(), Quantity::Real(value));
    }

    /// Adds what another metric is of, for the file only.
    pub fn text(&mut self, key: &'static str, value: String) {
        self.push(key.into(), "".into(), Quantity::Text(value));
    }

    /// Adds a real number that may be absent.
    pub fn optional(&mut self, key: &'static str, tag: impl Into<Cow<'static, str>>, value: Option<f64>) {
        self.push(key.into(), tag.into(), value.map_or(Quantity::Absent, Quantity::Real));
    }

    /// Adds one number for each quarter of the timesteps, least noise first: `{key}_q0` to `{key}_q3` in the file,
    /// and `{tag}/q0` to `{tag}/q3` in TensorBoard. If the tag already contains a slash, the suffixes are `_q0` to
    /// `_q3` instead.
    pub fn quarters(&mut self, key: &str, tag: &str, values: [Option<f64>; 4]) {
        let separator = if tag.contains('/') { '_' } else { '/' };
        for (q, value) in values.into_iter().enumerate() {
            let value = value.map_or(Quantity::Absent, Quantity::Real);
            self.push(format!("{key}_q{q}").into(), format!("{tag}{separator}q{q}").into(), value);
        }
    }

    /// Adds a figure that each rank has: the least, the median and the greatest, and the rank that has the last. The
    /// keys are `{key}_min`, `{key}_median`, `{key}_max` and `{key}_max_rank`, and so are the tags.
    pub fn ranks(&mut self, key: &str, tag: &str, spread: Option<([f64; 3], u64)>) {
        for (index, name) in ["min", "median", "max"].into_iter().enumerate() {
            let value = spread.map_or(Quantity::Absent, |(values, _)| Quantity::Real(values[index]));
            self.push(format!("{key}_{name}").into(), format!("{tag}_{name}").into(), value);
        }
        let rank = spread.map_or(Quantity::Absent, |(_, rank)| Quantity::Count(rank));
        self.push(format!("{key}_max_rank").into(), format!("{tag}_max_rank").into(), rank);
    }

    /// The value with this key; `None` if it is absent.
    pub fn get(&self, key: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.key == key)?.value.number()
    }

    fn push(&mut self, key: Cow<'static, str>, tag: Cow<'static, str>, value: Quantity) {
        self.figures.push(Figure { key, tag, value });
    }

    /// The values that TensorBoard plots, with their tags.
    pub(crate) fn scalars(&self) -> impl Iterator<Item = (&str, f64)> {
        self.figures.iter().filter_map(|figure| Some((figure.tag.as_ref(), figure.value.number()?)))
    }
}

impl Quantity {
    fn number(&self) -> Option<f64> {
        match self {
            Self::Count(count) => Some(*count as f64),
            Self::Real(value) => Some(*value),
            Self::Text(_) | Self::Absent => None,
        }
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Count(count) => serializer.serialize_u64(*count),
            // serde_json writes null for values that are not finite.
            Self::Real(value) => serializer.serialize_f64(*value),
            Self::Absent => serializer.serialize_none(),
        }
    }
}

impl Serialize for Metrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.figures.len() + 1))?;
        map.serialize_entry("step", &self.step)?;
        for figure in &self.figures {
            map.serialize_entry(&figure.key, &figure.value)?;
        }
        map.end()
    }
}

/// The open `metrics.jsonl`. Writing never fails; see the crate documentation.
pub struct MetricsLog(BestEffort<File>);

impl MetricsLog {
    /// Opens `path` for a run that resumes after `resume_step`, or starts at step 0 if that is `None`. Lines of later
    /// steps, which will be repeated, are removed, and so is a line that a crash left incomplete.
    pub fn open(path: &Path, resume_step: Option<u64>) -> Self {
        Self(BestEffort::new(path, cut_and_open(path, resume_step)))
    }

    /// Adds one line.
    pub fn append(&mut self, metrics: &Metrics) {
        self.0.attempt(|file| {
            let mut line = serde_json::to_vec(metrics)?;
            line.push(b'\n');
            // A single write, so that a crash can leave at most the last line incomplete.
            file.write_all(&line)
        });
    }
}

/// Reads the log steps of a run's `metrics.jsonl`, in order, as objects with the fields that [`Metrics`] wrote.
/// Incomplete lines are skipped.
///
/// # Errors
/// The file cannot be read.
pub fn read_metrics(path: &Path) -> io::Result<Vec<Map<String, Value>>> {
    Ok(fs::read_to_string(path)?.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn cut_and_open(path: &Path, resume_step: Option<u64>) -> io::Result<File> {
    // A pipe or a device has no earlier lines to remove.
    if path.is_file() {
        write_atomic(path, &lines_until(&fs::read(path)?, resume_step))?;
    } else if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    File::options().append(true).create(true).open(path)
}

fn lines_until(log: &[u8], resume_step: Option<u64>) -> Vec<u8> {
    #[derive(Deserialize)]
    struct Line {
        step: u64,
    }
    let mut kept = Vec::new();
    for line in log.split(|&byte| byte == b'\n') {
        if serde_json::from_slice::<Line>(line).is_ok_and(|line| Some(line.step) <= resume_step) {
            kept.extend_from_slice(line);
            kept.push(b'\n');
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::logged;

    fn at(step: u64) -> Metrics {
        let mut metrics = Metrics::at(step);
        metrics.real("loss", "loss/total", step as f64 / 4.0);
        metrics
    }

    fn steps(path: &Path) -> Vec<u64> {
        let log = fs::read_to_string(path).unwrap();
        assert!(log.is_empty() || log.ends_with('\n'));
        log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64().unwrap()).collect()
    }

    fn written(path: &Path, resume_step: Option<u64>, new: &[u64]) -> Vec<u64> {
        let mut log = MetricsLog::open(path, resume_step);
        new.iter().for_each(|&step| log.append(&at(step)));
        steps(path)
    }

    #[test]
    fn each_step_is_there_once_after_a_resume() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/metrics.jsonl");
        assert_eq!(written(&path, None, &[10, 20, 30]), [10, 20, 30]);
        assert_eq!(written(&path, Some(20), &[30, 40]), [10, 20, 30, 40]);
        assert_eq!(written(&path, Some(25), &[]), [10, 20]);
        assert_eq!(written(&path, Some(0), &[5]), [5]);
        assert_eq!(written(&path, None, &[7]), [7]);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_torn_line_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        for torn in [&b"{\"step\":30,\"lo"[..], b"{\"st\xff", b"\0\0\0\0", b"3"] {
            written(&path, None, &[10, 20]);
            File::options().append(true).open(&path).unwrap().write_all(torn).unwrap();
            assert_eq!(written(&path, Some(30), &[40]), [10, 20, 40]);
        }
        // Complete except for its newline: the line is kept, and the next one starts on a new line.
        fs::write(&path, serde_json::to_vec(&at(10)).unwrap()).unwrap();
        assert_eq!(written(&path, Some(10), &[20]), [10, 20]);
    }

    #[test]
    fn a_full_disk_costs_one_warning() {
        let warnings = logged(|| {
            let mut log = MetricsLog::open(Path::new("/dev/full"), Some(3));
            (4..8).for_each(|step| log.append(&at(step)));
        });
        assert_eq!(warnings.matches("/dev/full cannot be written").count(), 1);
    }

    #[test]
    fn a_line_has_every_field_in_order_and_null_for_what_is_not_finite() {
        let mut metrics = Metrics::at(3);
        metrics.count("images", "progress/images", 96);
        metrics.real("loss", "loss/total", f64::NAN);
        metrics.real("grad_norm", "update/grad_norm", f64::INFINITY);
        metrics.optional("vlb_smoothed", "vlb/smoothed", None);
        metrics.quarters("loss", "loss_by_t", [Some(1.0), None, Some(f64::NAN), Some(2.5)]);
        assert_eq!(
            serde_json::to_string(&metrics).unwrap(),
            "{\"step\":3,\"images\":96,\"loss\":null,\"grad_norm\":null,\"vlb_smoothed\":null,\"loss_q0\":1.0,\"loss_q1\":null,\
             \"loss_q2\":null,\"loss_q3\":2.5}"
        );
        let shown: Vec<&str> = metrics.scalars().map(|(tag, _)| tag).collect();
        let expected =
            ["progress/images", "loss/total", "update/grad_norm", "loss_by_t/q0", "loss_by_t/q2", "loss_by_t/q3"];
        assert_eq!(shown, expected);
        assert_eq!((metrics.get("images"), metrics.get("vlb_smoothed")), (Some(96.0), None));
    }

    #[test]
    fn a_figure_of_the_ranks_has_four_fields() {
        let mut metrics = Metrics::at(3);
        metrics.ranks("step_s", "ranks/step_s", Some(([0.5, 0.75, 1.0], 7)));
        metrics.ranks("wait_s", "ranks/wait_s", None);
        assert_eq!(
            serde_json::to_string(&metrics).unwrap(),
            "{\"step\":3,\"step_s_min\":0.5,\"step_s_median\":0.75,\"step_s_max\":1.0,\"step_s_max_rank\":7,\
             \"wait_s_min\":null,\"wait_s_median\":null,\"wait_s_max\":null,\"wait_s_max_rank\":null}"
        );
        let shown: Vec<&str> = metrics.scalars().map(|(tag, _)| tag).collect();
        assert_eq!(shown, ["ranks/step_s_min", "ranks/step_s_median", "ranks/step_s_max", "ranks/step_s_max_rank"]);
    }
}
