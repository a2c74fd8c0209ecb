//! `checkpoints`: what a store holds, whether it is sound, and moving it elsewhere.

use ddpm_checkpoint::{Lease, Manifest, Retention, Store};
use serde_json::json;

use crate::cli::CheckpointsCommand;
use crate::failure::{Exit, Failure};
use crate::output::print;
use crate::source::store_of;

/// How long `prune` keeps other writers out, at most.
const LEASE: std::time::Duration = std::time::Duration::from_secs(30);

/// Runs one of the commands.
pub fn run(command: &CheckpointsCommand, json: bool) -> Result<(), Failure> {
    match command {
        CheckpointsCommand::List { uri } => list(&open(uri)?, json),
        CheckpointsCommand::Show { uri, step } => {
            let store = open(uri)?;
            show(&store.read_manifest(newest(&store, *step)?)?, json)
        }
        CheckpointsCommand::Verify { uri, step } => verify(&open(uri)?, *step, json),
        CheckpointsCommand::Prune { uri, keep_last, keep_every, dry_run } => {
            let keep_every = keep_every.filter(|every| *every > 0);
            prune(&open(uri)?, &Retention { keep_last: *keep_last, keep_every, also: None }, *dry_run, json)
        }
        CheckpointsCommand::Copy { uri, to, step } => {
            let store = open(uri)?;
            let manifest = store.copy_checkpoint(newest(&store, *step)?, &Store::open(to)?)?;
            say(json, json!({ "step": manifest.step, "bytes": manifest.bytes(), "to": to }), || {
                format!("copied step {} to {to} and verified it: {}", manifest.step, megabytes(&manifest))
            })
        }
    }
}

fn open(uri: &str) -> Result<Store, Failure> {
    Ok(Store::open_existing(&store_of(uri)?)?)
}

fn newest(store: &Store, step: Option<u64>) -> Result<u64, Failure> {
    let none = || Failure::new(Exit::Storage, format!("{} holds no checkpoint; check the address", store.uri()));
    step.map_or_else(|| store.list()?.first().copied().ok_or_else(none), Ok)
}

fn list(store: &Store, json: bool) -> Result<(), Failure> {
    for step in store.list()? {
        let row = store.read_manifest(step);
        let value = match &row {
            Ok(m) => json!({ "step": step, "images": m.position, "bytes": m.bytes(), "ranks": m.world() }),
            Err(error) => json!({ "step": step, "error": error.to_string() }),
        };
        say(json, value, || match &row {
            Ok(m) => format!("step {step:>9}  {:>12} images  {:>10}  {} ranks", m.position, megabytes(m), m.world()),
            Err(error) => format!("step {step:>9}  {error}"),
        })?;
    }
    Ok(())
}

fn show(manifest: &Manifest, json: bool) -> Result<(), Failure> {
    if json {
        return print(serde_json::to_string(manifest).map_err(Failure::internal)?);
    }
    print(format_args!(
        "step        {} (epoch {}, {} images, seed {})",
        manifest.step, manifest.epoch, manifest.position, manifest.seed
    ))?;
    print(format_args!("written by  {}, attempt {}, lease {}", manifest.program, manifest.attempt, manifest.lease))?;
    print(format_args!("parameters  {} tensors", manifest.tensors.len()))?;
    for buffer in &manifest.buffers {
        print(format_args!("buffer      {:<16} {} numbers", buffer.name, buffer.len))?;
    }
    for shard in &manifest.shards {
        print(format_args!("shard       {}  {} bytes  sha256 {}", shard.path, shard.size, shard.sha256))?;
    }
    Ok(())
}

fn verify(store: &Store, step: Option<u64>, json: bool) -> Result<(), Failure> {
    // Nothing to verify is not "all is well".
    newest(store, step)?;
    let steps = step.map_or_else(|| store.list(), |step| Ok(vec![step]))?;
    let mut damaged = Vec::new();
    for step in &steps {
        let faults = match store.verify(*step) {
            Ok(report) => report.faults,
            Err(error @ ddpm_checkpoint::CheckpointError::Damaged { .. }) => vec![error.to_string()],
            Err(error) => return Err(error.into()),
        };
        say(json, json!({ "step": step, "faults": faults }), || match faults.as_slice() {
            [] => format!("step {step:>9}  every byte is as it was written"),
            faults => format!("step {step:>9}  DAMAGED: {}", faults.join("; ")),
        })?;
        if !faults.is_empty() {
            damaged.push(step.to_string());
        }
    }
    if damaged.is_empty() {
        return Ok(());
    }
    let message = format!("damaged: step {}; resume passes over them, prune or restore them", damaged.join(", "));
    Err(Failure::new(Exit::Storage, message))
}

fn prune(store: &Store, retention: &Retention, dry_run: bool, json: bool) -> Result<(), Failure> {
    let (deleted, warnings) = if dry_run {
        store.prunable(retention)?
    } else {
        let lease = store.acquire_lease("checkpoints prune", LEASE)?;
        let pruned = store.prune(retention, Some(&lease));
        let released = Lease::release(lease);
        let pruned = pruned?;
        if let Err(error) = released {
            tracing::warn!("{error}");
        }
        (pruned.deleted, pruned.warnings)
    };
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    say(json, json!({ "deleted": deleted, "dry_run": dry_run, "warnings": warnings }), || {
        let steps: Vec<String> = deleted.iter().map(u64::to_string).collect();
        let verb = if dry_run { "would delete" } else { "deleted" };
        if steps.is_empty() { format!("{verb} nothing") } else { format!("{verb} step {}", steps.join(", ")) }
    })
}

fn say(json: bool, value: serde_json::Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
    if json { print(value) } else { print(text()) }
}

fn megabytes(manifest: &Manifest) -> String {
    format!("{:.1} MB", manifest.bytes() as f64 / 1e6)
}
