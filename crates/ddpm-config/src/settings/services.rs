//! The services around training: `[comm]`, `[checkpoint]` and `[monitor]`.

use ddpm_spec::{Backend, Features, OnFailure, SamplerKind, Split, WhenBusy};
use serde::{Deserialize, Serialize};

/// `[comm]`: how ranks communicate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CommSettings {
    /// Library that averages gradients. Default `auto`.
    pub backend: Backend,
    /// Size of a gradient bucket, in MiB. Default 1.
    pub bucket_mb: f64,
    /// Average a bucket while backward computes the next. Default true.
    pub overlap: bool,
    /// Seconds without progress after which the watchdog ends the job. Default 600.
    pub timeout_s: u64,
    /// A rank that works this many times as long as the median of the ranks is reported. Default 1.2.
    pub straggler_factor: f64,
}

impl Default for CommSettings {
    fn default() -> Self {
        Self { backend: Backend::Auto, bucket_mb: 1.0, overlap: true, timeout_s: 600, straggler_factor: 1.2 }
    }
}

impl CommSettings {
    /// Size of a gradient bucket, in bytes.
    pub fn bucket_bytes(&self) -> usize {
        (self.bucket_mb * f64::from(1 << 20)) as usize
    }
}

/// `[checkpoint]`: what is saved, where and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointSettings {
    /// Store: a folder or a URI such as `s3://bucket/run`. Default `<run.dir>/checkpoints`;
    /// see [`Settings::checkpoint_uri`](crate::Settings::checkpoint_uri).
    pub uri: Option<String>,
    /// Steps between saves; the last step is always saved. Default 1000.
    pub every: u64,
    /// Newest checkpoints kept, at least 2. Default 2.
    pub keep_last: usize,
    /// Checkpoints at multiples of this many steps are kept permanently; 0: none. Default 0.
    pub keep_every: u64,
    /// What happens after a save has failed despite all retries. Default `warn`.
    pub on_failure: OnFailure,
    /// Size of an upload part, in MiB, at least 8. Default 8.
    pub part_mb: u32,
    /// The most parts in flight per rank; a transfer has as many as make it faster. Default 16.
    pub concurrency: usize,
    /// What happens when a save is due while the last one is in flight. Default `wait`.
    pub when_busy: WhenBusy,
    /// The user's guarantee that no other job writes to the store, for stores without conditional writes. Default
    /// false.
    pub exclusive: bool,
    /// Seconds without a renewal after which a writer may be replaced: how long a relaunch waits for a job that was
    /// killed. Default 30.
    pub lease_s: u64,
    /// Seconds for which a failed request to the store is retried. Default 60.
    pub retry_s: u64,
}

impl Default for CheckpointSettings {
    fn default() -> Self {
        Self {
            uri: None,
            every: 1000,
            keep_last: 2,
            keep_every: 0,
            on_failure: OnFailure::Warn,
            part_mb: 8,
            concurrency: 16,
            when_busy: WhenBusy::Wait,
            exclusive: false,
            lease_s: 30,
            retry_s: 60,
        }
    }
}

/// `[monitor]`: what is reported while training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MonitorSettings {
    /// Steps between lines of `metrics.jsonl`. Default 10.
    pub log_every: u64,
    /// Steps between sample grids; 0: never. Default 1000.
    pub sample_every: u64,
    /// Images in a grid. Default 64.
    pub sample_count: usize,
    /// Steps of the sampler. Default 50, or all of the process's timesteps if there are fewer.
    pub sample_steps: u32,
    /// Sampler of the grids, and of the samples that are compared with images. Default `ddim`.
    pub sampler: SamplerKind,
    /// Steps between evaluations of loss and bound on held-out images; 0: never. Default 0.
    pub eval_every: u64,
    /// Held-out images; if there are fewer, all. Default 512.
    pub eval_count: u64,
    /// Timesteps at which each held-out image is evaluated. Default 10, or all of the process's if there are fewer.
    pub eval_timesteps: u32,
    /// The split of the held-out images. Default `test`.
    pub eval_split: Split,
    /// Steps between Fréchet distances of samples from the training images; 0: never. Default 0.
    pub fid_every: u64,
    /// Samples drawn for each distance. Default 1000.
    pub fid_count: usize,
    /// The features that are compared. Default `pixels`.
    pub fid_features: Features,
    /// Statistics to compare with, as an `.npz` file. Default: those of the training images.
    pub fid_reference: Option<String>,
    /// Write TensorBoard events. Default true.
    pub tensorboard: bool,
    /// What a GPU can compute at most in the run's precision, in TFLOP/s, for `mfu`. Default: by its name.
    pub peak_tflops: Option<f64>,
}

impl MonitorSettings {
    /// The default of `sample_steps`, if the process has as many timesteps.
    pub(crate) const SAMPLE_STEPS: u32 = 50;
    /// That of `eval_timesteps`.
    pub(crate) const EVAL_TIMESTEPS: u32 = 10;
}

impl Default for MonitorSettings {
    fn default() -> Self {
        Self {
            log_every: 10,
            sample_every: 1000,
            sample_count: 64,
            sample_steps: Self::SAMPLE_STEPS,
            sampler: SamplerKind::Ddim,
            eval_every: 0,
            eval_count: 512,
            eval_timesteps: Self::EVAL_TIMESTEPS,
            eval_split: Split::Test,
            fid_every: 0,
            fid_count: 1000,
            fid_features: Features::Pixels,
            fid_reference: None,
            tensorboard: true,
            peak_tflops: None,
        }
    }
}
