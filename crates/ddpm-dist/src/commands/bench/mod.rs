//! `bench`: what a configuration costs on this machine, measured with the code that training runs.

mod allreduce;
mod checkpoint;
mod loader;
mod measure;
mod report;
mod stall;
mod step;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ddpm_checkpoint::nonce;
use ddpm_comm::{Collective, World, agree};
use ddpm_config::Settings;
use ddpm_model::{Error, Failure, Place, resolve_for_training};
use ddpm_telemetry::peak_rss_mb;
use ddpm_train::{Plan, StopRequest, Trainer};
use serde_json::Value;
use tempfile::TempDir;

use crate::cli::BenchCommand;
use crate::failure::{Exit, relieve_with};
use crate::plan;
use measure::largest;
use report::Report;

/// The context that every benchmark gets.
struct Bench<'a> {
    world: &'a World,
    comm: Arc<dyn Collective>,
    place: Place,
    stop: &'a StopRequest,
    /// The user's, except for the locations of the run and its store.
    settings: Settings,
}

/// Runs one of the benchmarks, all ranks together; rank 0 prints the report.
pub fn run(command: &BenchCommand, world: &World, stop: &StopRequest, json: bool) -> Result<i32, Failure> {
    let comm = world.collective();
    let made = if world.rank() == 0 { scratch().map(Some) } else { Ok(None) };
    let scratch = agree::unanimous(comm.as_ref(), made)?;
    let folder = agree::on_root(comm.as_ref(), || {
        Ok::<_, Error>(scratch.as_ref().map(|s| s.path().to_owned()).unwrap_or_default())
    })?;
    let settings = plan::settings(comm.as_ref(), command.config(), &places(command, &folder))?;
    world.watch(Duration::from_secs(settings.comm.timeout_s));
    let place = resolve_for_training(world, &settings.train)?;
    relieve_with(ddpm_train::relief(&settings, comm.size(), place.has_bf16()));
    let comm = ddpm_train::transport(world, settings.comm.backend, place.memory)?;
    let bench = Bench { world, comm, place, stop, settings };
    let report = match command {
        BenchCommand::Step { steps, warmup, profile, .. } => step::run(&bench, *steps, *warmup, profile.as_deref()),
        BenchCommand::Allreduce { repeat, .. } => allreduce::run(&bench, *repeat).map(Some),
        BenchCommand::Loader { steps, .. } => loader::run(&bench, *steps).map(Some),
        BenchCommand::Checkpoint { repeat, steps, every, .. } => checkpoint::run(&bench, *repeat, *steps, *every),
    }?;
    let Some(report) = report else {
        tracing::info!("stopped on request");
        return Ok(Exit::Stopped.code());
    };
    if world.rank() == 0 {
        report.print(json)?;
    }
    Ok(0)
}

/// A folder that is deleted at the end.
fn scratch() -> Result<TempDir, Error> {
    let folder = tempfile::Builder::new().prefix("ddpm-dist-bench-").tempdir();
    folder.map_err(|e| Error::file(&std::env::temp_dir(), e))
}

/// Overrides that keep a benchmark away from the user's files: a temporary run directory, and a new store.
fn places(command: &BenchCommand, scratch: &Path) -> Vec<String> {
    let scratch = scratch.display().to_string();
    let store = match command {
        // An address that is only a scheme is passed on unchanged, so that it is refused with the usual message.
        BenchCommand::Checkpoint { uri: Some(uri), .. } if uri.ends_with("://") => uri.clone(),
        BenchCommand::Checkpoint { uri: Some(uri), .. } => format!("{}/bench-{}", uri.trim_end_matches('/'), nonce()),
        _ => format!("{scratch}/checkpoints"),
    };
    // A failed save would count as a fast one.
    vec![set("run.dir", &scratch), set("checkpoint.uri", &store), set("checkpoint.on_failure", "abort")]
}

fn set(key: &str, value: &str) -> String {
    format!("{key}={}", serde_json::Value::from(value))
}

impl Bench<'_> {
    /// A trainer with these settings at step 0, which does not log, draw samples or save by itself.
    fn trainer(&self) -> Result<Trainer, Failure> {
        let mut settings = self.settings.clone();
        (settings.train.steps, settings.monitor.log_every) = (u64::MAX, u64::MAX);
        Trainer::prepare(&self.comm, self.place, Plan::fresh(settings), self.stop)
    }

    /// Whether any rank was asked to stop; the same on all.
    fn stopped(&self) -> bool {
        self.stop.requested_anywhere(self.comm.as_ref())
    }

    /// The entries of every report; null for those that this benchmark does not measure. All ranks call this, after
    /// measuring.
    fn report(&self, parameters: Option<i64>) -> Report {
        let report = Report::default()
            .with("world", self.comm.size())
            .with("device", if self.place.is_gpu() { "cuda" } else { "cpu" })
            .with("threads", tch::get_num_threads())
            .with("params", parameters)
            .with("batch_per_rank", self.settings.train.global_batch / self.comm.size())
            .with("max_rss_mb", largest(self.comm.as_ref(), peak_rss_mb()));
        let others = ["images_per_s", "median_step_s", "first_step_s", "comm_wait_s", "data_wait_s"];
        others.into_iter().fold(report, |report, name| report.with(name, Value::Null))
    }
}
