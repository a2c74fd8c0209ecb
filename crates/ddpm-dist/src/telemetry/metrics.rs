//! `metrics.jsonl`: one JSON object per log step, each step once however often the run was resumed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};

use super::{BestEffort, write_atomic};

/// One log step. Losses are means over the global batch, in the units of the objective; a number that is not
/// finite is written as null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Updates made since the start of the run.
    pub step: u64,
    /// Images seen since the start of the run, over all ranks.
    pub images: u64,
    /// Passes over the data set: `images` divided by its size.
    #[serde(deserialize_with = "nan_for_null")]
    pub epoch: f64,
    /// The objective that is descended.
    #[serde(deserialize_with = "nan_for_null")]
    pub loss: f64,
    /// Its squared-error term; null, as is the bound below, of a classifier.
    #[serde(deserialize_with = "nan_for_null")]
    pub mse: f64,
    /// The bound's term at the batch's timesteps, in bits per dimension, weighted like the loss.
    #[serde(deserialize_with = "nan_for_null")]
    pub vb: f64,
    /// This batch's estimate of the variational bound without its prior term, in bits per dimension: T times `vb`.
    #[serde(deserialize_with = "nan_for_null")]
    pub vlb: f64,
    /// The share in `vlb` of t in the first quarter of [0, T); the four add up to it.
    #[serde(deserialize_with = "nan_for_null")]
    pub vlb_q0: f64,
    /// The same for the second quarter.
    #[serde(deserialize_with = "nan_for_null")]
    pub vlb_q1: f64,
    /// The same for the third quarter.
    #[serde(deserialize_with = "nan_for_null")]
    pub vlb_q2: f64,
    /// The same for the last quarter.
    #[serde(deserialize_with = "nan_for_null")]
    pub vlb_q3: f64,
    /// The bound smoothed over steps at each timestep before it is summed; none before each t was drawn once.
    pub vlb_smoothed: Option<f64>,
    /// The share in `vlb_smoothed` of t in the first quarter of [0, T).
    pub vlb_smoothed_q0: Option<f64>,
    /// The same for the second quarter.
    pub vlb_smoothed_q1: Option<f64>,
    /// The same for the third quarter.
    pub vlb_smoothed_q2: Option<f64>,
    /// The same for the last quarter.
    pub vlb_smoothed_q3: Option<f64>,
    /// Mean loss of the samples with t in the first quarter of [0, T); none if no t fell there.
    pub loss_q0: Option<f64>,
    /// The same for the second quarter.
    pub loss_q1: Option<f64>,
    /// The same for the third quarter.
    pub loss_q2: Option<f64>,
    /// The same for the last quarter.
    pub loss_q3: Option<f64>,
    /// Share of images classified rightly, of a classifier; `accuracy_q0` to `accuracy_q3` by quarter of t.
    #[serde(flatten)]
    pub accuracy: Option<Accuracy>,
    /// L2 norm of the averaged gradient before clipping.
    #[serde(deserialize_with = "nan_for_null")]
    pub grad_norm: f64,
    /// The variance of one sample's gradient, summed over the parameters and smoothed over steps; none on one rank.
    pub grad_variance: Option<f64>,
    /// The gradient noise scale, in images, smoothed over steps; none on one rank.
    pub grad_noise_scale: Option<f64>,
    /// Learning rate of this update.
    #[serde(deserialize_with = "nan_for_null")]
    pub lr: f64,
    /// Images per second over all ranks since the last log step.
    #[serde(deserialize_with = "nan_for_null")]
    pub images_per_s: f64,
    /// Seconds spent waiting for data since the last log step.
    #[serde(deserialize_with = "nan_for_null")]
    pub data_wait_s: f64,
    /// Seconds spent waiting for the other ranks since the last log step.
    #[serde(deserialize_with = "nan_for_null")]
    pub comm_wait_s: f64,
    /// Seconds that checkpoints held training up since the last log step.
    #[serde(deserialize_with = "nan_for_null")]
    pub ckpt_stall_s: f64,
    /// Resident memory of the writing rank, in MB: see [`rss_mb`].
    #[serde(deserialize_with = "nan_for_null")]
    pub rss_mb: f64,
    /// Updates left out so far because the gradient was not finite.
    pub skipped: u64,
    /// Images that could not be read and were replaced, over all ranks, since this start of the run.
    #[serde(default)]
    pub corrupt: u64,
    /// Checkpoints that failed or were left out, since this start of the run.
    #[serde(default)]
    pub ckpt_missed: u64,
}

/// What only a classifier's log has: shares of images classified rightly, by t as the losses are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Over the global batch.
    pub accuracy: f64,
    /// With t in the first quarter of [0, T).
    pub accuracy_q0: Option<f64>,
    /// In the second.
    pub accuracy_q1: Option<f64>,
    /// In the third.
    pub accuracy_q2: Option<f64>,
    /// In the last.
    pub accuracy_q3: Option<f64>,
}

impl Metrics {
    /// What TensorBoard plots, by tag.
    pub(super) fn scalars(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let denoiser = |value: f64| self.accuracy.is_none().then_some(value);
        [
            ("loss/total", Some(self.loss)),
            ("loss/mse", denoiser(self.mse)),
            ("loss/vb", denoiser(self.vb)),
            ("vlb/raw", denoiser(self.vlb)),
            ("vlb/raw_q0", denoiser(self.vlb_q0)),
            ("vlb/raw_q1", denoiser(self.vlb_q1)),
            ("vlb/raw_q2", denoiser(self.vlb_q2)),
            ("vlb/raw_q3", denoiser(self.vlb_q3)),
            ("vlb/smoothed", self.vlb_smoothed),
            ("vlb/smoothed_q0", self.vlb_smoothed_q0),
            ("vlb/smoothed_q1", self.vlb_smoothed_q1),
            ("vlb/smoothed_q2", self.vlb_smoothed_q2),
            ("vlb/smoothed_q3", self.vlb_smoothed_q3),
            ("loss_by_t/q0", self.loss_q0),
            ("loss_by_t/q1", self.loss_q1),
            ("loss_by_t/q2", self.loss_q2),
            ("loss_by_t/q3", self.loss_q3),
            ("accuracy/total", self.accuracy.map(|a| a.accuracy)),
            ("accuracy_by_t/q0", self.accuracy.and_then(|a| a.accuracy_q0)),
            ("accuracy_by_t/q1", self.accuracy.and_then(|a| a.accuracy_q1)),
            ("accuracy_by_t/q2", self.accuracy.and_then(|a| a.accuracy_q2)),
            ("accuracy_by_t/q3", self.accuracy.and_then(|a| a.accuracy_q3)),
            ("update/grad_norm", Some(self.grad_norm)),
            ("update/grad_variance", self.grad_variance),
            ("update/grad_noise_scale", self.grad_noise_scale),
            ("update/lr", Some(self.lr)),
            ("update/skipped", Some(self.skipped as f64)),
            ("progress/corrupt", Some(self.corrupt as f64)),
            ("progress/ckpt_missed", Some(self.ckpt_missed as f64)),
            ("progress/images", Some(self.images as f64)),
            ("progress/epoch", Some(self.epoch)),
            ("speed/images_per_s", Some(self.images_per_s)),
            ("speed/data_wait_s", Some(self.data_wait_s)),
            ("speed/comm_wait_s", Some(self.comm_wait_s)),
            ("speed/ckpt_stall_s", Some(self.ckpt_stall_s)),
            ("memory/rss_mb", Some(self.rss_mb)),
        ]
        .into_iter()
        .filter_map(|(tag, value)| Some((tag, value?)))
    }
}

fn nan_for_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// The open `metrics.jsonl`. It never fails: see the module `telemetry`.
pub struct MetricsLog(BestEffort<File>);

impl MetricsLog {
    /// Opens `path` for a run that goes on after `resume_step`, or starts afresh where that is none. Lines of
    /// later steps, which will be run again, are cut, and so is a line that a crash left torn.
    pub fn open(path: &Path, resume_step: Option<u64>) -> Self {
        Self(BestEffort::new(path, cut_and_open(path, resume_step)))
    }

    /// Adds one line.
    pub fn append(&mut self, metrics: &Metrics) {
        self.0.attempt(|file| {
            let mut line = serde_json::to_vec(metrics)?;
            line.push(b'\n');
            // One write, so that a crash tears no line but the last.
            file.write_all(&line)
        });
    }
}

/// The log steps of a run's `metrics.jsonl`, in order; lines that are none are left out.
///
/// # Errors
/// The file cannot be read.
pub fn read_metrics(path: &Path) -> io::Result<Vec<Metrics>> {
    Ok(fs::read_to_string(path)?.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn cut_and_open(path: &Path, resume_step: Option<u64>) -> io::Result<File> {
    // A pipe or a device has no past to cut.
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

/// Resident memory of this process in MB (10^6 bytes); not a number where `/proc` does not tell.
pub fn rss_mb() -> f64 {
    status_mb("VmRSS:")
}

/// The most that [`rss_mb`] ever was.
pub fn peak_rss_mb() -> f64 {
    status_mb("VmHWM:")
}

fn status_mb(key: &str) -> f64 {
    let read = || {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib * 1024.0 / 1e6)
    };
    read().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::super::testing::logged;
    use super::*;

    fn at(step: u64) -> Metrics {
        Metrics { step, loss: step as f64 / 4.0, vb: 0.5, ..Default::default() }
    }

    fn steps(path: &Path) -> Vec<u64> {
        let log = fs::read_to_string(path).unwrap();
        assert!(log.is_empty() || log.ends_with('\n'));
        log.lines().map(|line| serde_json::from_str::<Metrics>(line).unwrap().step).collect()
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
        // Whole but for its newline: kept, and the next line does not run into it.
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
    fn what_is_not_finite_is_null() {
        let metrics = Metrics { loss: f64::NAN, grad_norm: f64::INFINITY, loss_q2: Some(f64::NAN), ..at(1) };
        let line: serde_json::Value = serde_json::to_value(&metrics).unwrap();
        for key in ["loss", "grad_norm", "loss_q2", "vlb_smoothed"] {
            assert!(line[key].is_null(), "{key} is {}", line[key]);
        }
        let read: Metrics = serde_json::from_value(line).unwrap();
        assert!(read.loss.is_nan() && read.grad_norm.is_nan() && read.loss_q2.is_none());
        assert_eq!(read.vb, 0.5);
    }

    #[test]
    fn resident_memory_is_plausible() {
        assert!((1.0..1e6).contains(&rss_mb()), "{} MB", rss_mb());
    }
}
