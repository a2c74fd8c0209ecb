//! `checkpoints`: lists, shows, verifies, prunes and copies the checkpoints of a store, and frees its lease.

use std::time::Duration;

use ddpm_checkpoint::{CheckpointError, Lease, Manifest, Retention, Store};
use ddpm_model::{Error, ErrorKind, adopt_run, copy_snapshots, find_snapshots, newest_besides, store_of};
use ddpm_telemetry::{Unit, Work};
use serde_json::{Value, json};

use crate::cli::CheckpointsCommand;
use crate::output::{print, print_rows};

/// How long a command that changes a store keeps other writers out, at most, if it is killed.
const LEASE: Duration = Duration::from_secs(30);

/// Where the column after the step begins, and the column after the names of what a manifest holds.
const STEP_COLUMN: usize = 16;
const NAME_COLUMN: usize = 12;

/// Runs one of the commands.
pub fn run(command: &CheckpointsCommand, json: bool) -> Result<(), Error> {
    match command {
        CheckpointsCommand::List { uri } => list(&open(uri)?, json),
        CheckpointsCommand::Show { uri, step } => {
            let store = open(uri)?;
            show(&store.read_manifest(newest(&store, *step)?)?, json)
        }
        CheckpointsCommand::Verify { uri, step } => verify(&open(uri)?, *step, json),
        CheckpointsCommand::Prune { uri, keep_last, keep_every, dry_run } => {
            let keep_every = keep_every.filter(|every| *every > 0);
            prune(&open(uri)?, &Retention { keep_last: *keep_last, keep_every, keep_step: None }, *dry_run, json)
        }
        CheckpointsCommand::Drop { uri, step, force } => drop_step(&open(uri)?, *step, *force, json),
        CheckpointsCommand::Copy { uri, to, step } => {
            let store = open(uri)?;
            copy(&store, newest(&store, *step)?, &Store::open(&store_of(to)?)?, json)
        }
        CheckpointsCommand::Unlock { uri, force } => unlock(&open(uri)?, *force, json),
    }
}

fn open(uri: &str) -> Result<Store, Error> {
    Ok(Store::open_existing(&store_of(uri)?)?)
}

fn newest(store: &Store, step: Option<u64>) -> Result<u64, Error> {
    let none = || Error::new(ErrorKind::Storage, format!("{} holds no checkpoint; check the address", store.uri()));
    step.map_or_else(|| store.list()?.first().copied().ok_or_else(none), Ok)
}

fn list(store: &Store, json: bool) -> Result<(), Error> {
    for step in store.list()? {
        let row = store.read_manifest(step);
        let value = match &row {
            Ok(m) => json!({ "step": step, "images": m.position, "bytes": m.bytes(), "ranks": m.world() }),
            Err(error) => json!({ "step": step, "error": error.to_string() }),
        };
        say(json, value, STEP_COLUMN, || match &row {
            Ok(m) => format!("step {step:>9}  {:>12} images  {:>10}  {} ranks", m.position, megabytes(m), m.world()),
            Err(error) => format!("step {step:>9}  {error}"),
        })?;
    }
    let Some((_, steps)) = find_snapshots(store)? else { return Ok(()) };
    let (newest, oldest) = (steps[0], steps[steps.len() - 1]);
    say(json, json!({ "snapshots": steps }), 0, || {
        format!("{} snapshots of averages, of steps {oldest} to {newest}", steps.len())
    })
}

fn show(manifest: &Manifest, json: bool) -> Result<(), Error> {
    if json {
        return print(serde_json::to_string(manifest).map_err(Error::internal)?);
    }
    let row = |name: &str, text: String| print_rows(format_args!("{name:<NAME_COLUMN$}{text}"), NAME_COLUMN);
    let Manifest { step, epoch, position, seed, .. } = manifest;
    row("step", format!("{step} (epoch {epoch}, {position} images, seed {seed})"))?;
    row("written by", format!("{}, attempt {}, lease {}", manifest.program, manifest.attempt, manifest.lease))?;
    // Equal for two checkpoints that were trained with equal settings.
    row("settings", format!("hash {}", manifest.config_hash))?;
    row("parameters", format!("{} tensors", manifest.tensors.len()))?;
    for buffer in &manifest.buffers {
        row("buffer", format!("{:<16} {} numbers", buffer.name, buffer.len))?;
    }
    for shard in &manifest.shards {
        row("shard", format!("{}  {} bytes  sha256 {}", shard.path, shard.size, shard.sha256))?;
    }
    Ok(())
}

fn verify(store: &Store, step: Option<u64>, json: bool) -> Result<(), Error> {
    // An empty store must not look as if everything verified.
    newest(store, step)?;
    let steps = step.map_or_else(|| store.list(), |step| Ok(vec![step]))?;
    let mut damaged = Vec::new();
    for step in &steps {
        let total = store.read_manifest(*step).ok().map(|manifest| manifest.bytes());
        let work = Work { name: format!("verifying step {step}"), total, unit: Unit::Bytes };
        let before = store.bytes_read();
        let faults = match work.show(|| store.bytes_read() - before, || store.verify(*step)) {
            Ok(report) => report.faults,
            Err(error @ ddpm_checkpoint::CheckpointError::Damaged { .. }) => vec![error.to_string()],
            Err(error) => return Err(error.into()),
        };
        say(json, json!({ "step": step, "faults": faults }), STEP_COLUMN, || match faults.as_slice() {
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
    let message = format!("damaged: step {}; resume skips them; drop or restore them", damaged.join(", "));
    Err(Error::new(ErrorKind::Storage, message))
}

fn prune(store: &Store, retention: &Retention, dry_run: bool, json: bool) -> Result<(), Error> {
    let (deleted, warnings) = if dry_run {
        store.prunable(retention)?
    } else {
        let work = Work { name: "pruning".into(), total: None, unit: Unit::Of("files deleted") };
        let prune = |lease: &Lease| work.show(|| store.objects_deleted(), || store.prune(retention, Some(lease)));
        let pruned = holding(store, "checkpoints prune", |lease| Ok(prune(lease)?))?;
        (pruned.deleted, pruned.warnings)
    };
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    say(json, json!({ "deleted": deleted, "dry_run": dry_run, "warnings": warnings }), 0, || {
        let steps: Vec<String> = deleted.iter().map(u64::to_string).collect();
        let verb = if dry_run { "would delete" } else { "deleted" };
        let what = if steps.is_empty() { "nothing".into() } else { format!("step {}", steps.join(", ")) };
        format!("{verb} {what} in {}", store.uri())
    })
}

/// Deletes one checkpoint, and prints which one a run would resume from now.
fn drop_step(store: &Store, step: u64, force: bool, json: bool) -> Result<(), Error> {
    let before = holding(store, "checkpoints drop", |lease| {
        let other = newest_besides(store, step)?;
        if other.is_none() && !force && store.list()?.contains(&step) {
            let message = format!(
                "step {step} is the only valid checkpoint in {}, so a run there would have nothing to resume from; \
                 --force drops it anyway",
                store.uri()
            );
            return Err(Error::config(message));
        }
        store.drop_checkpoint(step, lease)?;
        Ok(other)
    })?;
    say(json, json!({ "dropped": step, "newest": before }), 0, || match before {
        Some(newest) => {
            format!("dropped step {step}; the newest valid checkpoint in {} is of step {newest}", store.uri())
        }
        None => format!("dropped step {step}; {} has no valid checkpoint", store.uri()),
    })
}

/// Copies a checkpoint, unless the destination has another run's checkpoints.
fn copy(from: &Store, step: u64, to: &Store, json: bool) -> Result<(), Error> {
    let copied = holding(to, "checkpoints copy", |_| {
        adopt_run(from, step, to)?;
        copy_snapshots(from, step, to, copy_bytes)?;
        Ok(copy_bytes(from, step, to)?)
    })?;
    say(json, json!({ "step": step, "bytes": copied.bytes(), "to": to.uri() }), 0, || {
        format!("copied step {step} to {} and verified it: {}", to.uri(), megabytes(&copied))
    })
}

/// Copies a checkpoint, of which every byte is read in both stores.
fn copy_bytes(from: &Store, step: u64, to: &Store) -> Result<Manifest, CheckpointError> {
    let total = Some(2 * from.read_manifest(step)?.bytes());
    let read = || from.bytes_read() + to.bytes_read();
    let before = read();
    let work = Work { name: format!("copying step {step}"), total, unit: Unit::Bytes };
    work.show(|| read() - before, || from.copy_checkpoint(step, to))
}

/// Breaks a lease that was left behind; one whose owner may still be alive only with `force`.
fn unlock(store: &Store, force: bool, json: bool) -> Result<(), Error> {
    const BY: &str = "nobody (freed by checkpoints unlock)";
    let uri = store.uri();
    let done = |owner: Option<&str>, text: String| say(json, json!({ "store": uri, "freed_from": owner }), 0, || text);
    let lease_status = match store.lease_status() {
        Err(CheckpointError::DamagedLease { .. }) if force => {
            store.replace_damaged_lease(BY)?;
            return done(None, format!("freed {uri}, whose lease could not be read"));
        }
        found => found?,
    };
    let Some(lease_status) = lease_status else { return done(None, format!("no job holds {uri}")) };
    let held = lease_status.describe();
    if !lease_status.remaining().is_zero() && !force {
        let message = format!(
            "{held}; {}: if the job is certainly dead, add --force; a live one ends at its next renewal, and saves \
             nothing more",
            lease_status.prospects()
        );
        return Err(Error::new(ErrorKind::ResumeRefused, message));
    }
    store.break_lease(&lease_status, BY)?;
    done(Some(lease_status.owner.as_str()), format!("freed {uri}: {held}"))
}

/// Runs `work` on a store while holding its lease, which keeps other writers out.
fn holding<T>(store: &Store, owner: &str, work: impl FnOnce(&Lease) -> Result<T, Error>) -> Result<T, Error> {
    let lease = store.acquire_lease(owner, LEASE)?;
    let done = work(&lease);
    if let Err(error) = lease.release() {
        tracing::warn!("{error}");
    }
    done
}

/// Prints a value, or its text, whose last column begins at `indent`.
fn say(json: bool, value: Value, indent: usize, text: impl FnOnce() -> String) -> Result<(), Error> {
    if json { print(value) } else { print_rows(text(), indent) }
}

fn megabytes(manifest: &Manifest) -> String {
    format!("{:.1} MB", manifest.bytes() as f64 / 1e6)
}
