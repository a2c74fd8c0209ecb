//! The context that every benchmark gets, and the head of its report.

use std::sync::Arc;

use ddpm_comm::{Collective, World};
use ddpm_config::Settings;
use ddpm_model::{Failure, Place};
use ddpm_telemetry::peak_rss_mb;
use ddpm_train::{Plan, Program, StopRequest, Trainer};
use serde_json::Value;

use crate::measure::largest;
use crate::report::Report;

/// The context that every benchmark gets.
pub struct Bench<'a> {
    /// The ranks.
    pub world: &'a World,
    /// How they communicate.
    pub comm: Arc<dyn Collective>,
    /// Where this rank computes.
    pub place: Place,
    /// The user's wish to stop.
    pub stop: &'a StopRequest,
    /// The user's, except for the locations of the run and its store.
    pub settings: Settings,
    /// The program that measures.
    pub program: Program,
}

impl Bench<'_> {
    /// A trainer with these settings at step 0, which does not log, draw samples or save by itself.
    pub fn trainer(&self) -> Result<Trainer, Failure> {
        let mut settings = self.settings.clone();
        (settings.train.steps, settings.monitor.log_every) = (u64::MAX, u64::MAX);
        Trainer::prepare(&self.comm, self.place, Plan::fresh(settings).by(self.program.clone()), self.stop)
    }

    /// Whether any rank was asked to stop; the same on all.
    pub fn stopped(&self) -> bool {
        self.stop.requested_anywhere(self.comm.as_ref())
    }

    /// The entries of every report; null for those that this benchmark does not measure. All ranks call this, after
    /// measuring.
    pub fn report(&self, parameters: Option<i64>) -> Report {
        let report = Report::default()
            .with("world", self.comm.size())
            .with("device", if self.place.is_gpu() { "cuda" } else { "cpu" })
            .with("threads", tch::get_num_threads())
            .with("params", parameters)
            .with("batch_per_rank", self.settings.train.global_batch / self.comm.size())
            .with("max_rss_mb", largest(self.comm.as_ref(), peak_rss_mb()));
        let others = [
            "images_per_s",
            "tflops",
            "mfu",
            "median_step_s",
            "first_step_s",
            "comm_wait_s",
            "data_wait_s",
            "gpu_reserved_mb",
        ];
        others.into_iter().fold(report, |report, name| report.with(name, Value::Null))
    }
}
