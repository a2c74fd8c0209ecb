//! `bench`: what a configuration costs on this machine, measured with the code that training runs.

use std::path::Path;
use std::time::Duration;

use ddpm_bench::{Bench, Report};
use ddpm_checkpoint::nonce;
use ddpm_comm::{Agreed, World, agree};
use ddpm_model::{Error, Failure, resolve_for_training};
use ddpm_train::StopRequest;
use tempfile::TempDir;

use crate::cli::BenchCommand;
use crate::failure::{Exit, program, relieve_with};
use crate::output::{print, say};
use crate::plan;

/// Runs one of the benchmarks, all ranks together; rank 0 prints the report.
pub fn run(command: &BenchCommand, world: &World, stop: &StopRequest, json: bool) -> Result<i32, Failure> {
    check(command, world.size()).map_err(Agreed::known_to_all)?;
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
    let bench = Bench { world, comm, place, stop, settings, program: program() };
    let report = match command {
        BenchCommand::Step { steps, warmup, profile, .. } => {
            ddpm_bench::step(&bench, *steps, *warmup, profile.as_deref())
        }
        BenchCommand::Allreduce { repeat, .. } => ddpm_bench::allreduce(&bench, *repeat).map(Some),
        BenchCommand::Loader { steps, .. } => ddpm_bench::loader(&bench, *steps).map(Some),
        BenchCommand::Checkpoint { repeat, steps, every, .. } => {
            ddpm_bench::checkpoint(&bench, *repeat, *steps, *every)
        }
    }?;
    let Some(report) = report else {
        tracing::info!("stopped on request");
        return Ok(Exit::Stopped.code());
    };
    if world.rank() == 0 {
        show(&report, json)?;
    }
    Ok(0)
}

fn show(report: &Report, json: bool) -> Result<(), Error> {
    if let Some(note) = report.note() {
        say(note.trim_end());
    }
    match json {
        true => print(serde_json::to_string(report).expect("names and plain values")),
        false => report.lines().try_for_each(print),
    }
}

/// Refuses what would measure nothing.
fn check(command: &BenchCommand, ranks: usize) -> Result<(), Error> {
    match command {
        BenchCommand::Allreduce { .. } if ranks == 1 => Err(Error::config(
            "bench allreduce measures communication between ranks, and there is only one; start several, such as \
             launch/local.sh 2 bench allreduce --config smoke",
        )),
        BenchCommand::Checkpoint { steps: Some(steps), every, .. } if !steps.is_multiple_of(*every) => {
            Err(Error::config(format!(
                "--steps {steps} is not a multiple of --every {every}, so the saves would not be evenly spaced; give \
                 --steps {}",
                steps.next_multiple_of(*every)
            )))
        }
        _ => Ok(()),
    }
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
    // A failed save would count as a fast one; and no other model is needed to measure.
    let others = [("checkpoint.on_failure", "abort"), ("train.init_from", "")];
    let places = [("run.dir", scratch.as_str()), ("checkpoint.uri", &store)];
    let set = places.into_iter().chain(others).map(|(key, value)| set(key, value));
    set.chain(["train.init_skip_mismatched=false".into()]).collect()
}

fn set(key: &str, value: &str) -> String {
    format!("{key}={}", serde_json::Value::from(value))
}
