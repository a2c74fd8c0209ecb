//! Selects the checkpoint to resume from: rank 0 chooses it, all ranks read it, and a checkpoint of another run is
//! refused.

use std::path::Path;

use ddpm_checkpoint::{CheckpointError, Failpoint, Manifest, Search, ShardEntry, ShardRange, Store, Want};
use ddpm_comm::{Agreed, Collective, agree};
use ddpm_config::{DataKind, Difference, DifferenceKind, Settings};
use ddpm_model::{Error, ErrorKind, Failure, Learner, Remedy, store_options};
use ddpm_nn::{Layout, Network};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, TchError, Tensor};

use crate::checkpointing::overlooked::check_overlooked_checkpoints;
use crate::data_record::{DATA, DataChange};

/// The keys that determine the images and their classes. Allowing one of them to change allows another data set.
const OTHER_DATA: [&str; 4] = ["data.count", "data.kind", "data.labels", "data.path"];

/// The keys that determine the order of the same images.
const OTHER_ORDER: [&str; 2] = ["data.shuffle", "data.shuffle_window"];

/// What to resume from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResumeFrom {
    /// The newest checkpoint, or step 0 if there is none.
    Auto,
    /// Step 0; refused if there are checkpoints.
    Never,
    /// The checkpoint of this step.
    Step(u64),
}

/// A checkpoint, read by all ranks together.
pub struct Checkpoint {
    /// Its manifest, the same on every rank.
    pub manifest: Manifest,
    /// The manifest's buffers, on the CPU. Each rank has read and verified its shards, of w ranks rank i the shards i,
    /// i+w, ...; what belongs to other shards is undefined until it is restored.
    pub buffers: Vec<Tensor>,
}

/// Finds the checkpoint to resume from, and the newest step in the store, valid or not. Refuses a checkpoint of
/// another run. Each byte is read and hashed once, by one rank; if a shard is damaged, all ranks fall back to the
/// next older checkpoint. Nothing is written yet. `allowed` lists the keys that may differ from the checkpoint's.
/// `recorded` is the path of another run's `config.toml`, if the settings were read from it.
pub fn select(
    comm: &dyn Collective,
    settings: &Settings,
    resume: ResumeFrom,
    allowed: &[String],
    recorded: Option<&Path>,
) -> Result<(Option<Checkpoint>, Option<u64>), Failure> {
    let opened = if comm.rank() == 0 { open(settings, resume) } else { Ok(None) };
    let store = agree::unanimous(comm, opened)?;
    let want = match resume {
        ResumeFrom::Step(step) => Want::Step(step),
        ResumeFrom::Auto | ResumeFrom::Never => Want::Latest,
    };
    let begun = store.as_ref().map(|store| store.search(want).map_err(classify_store_error)).transpose();
    let mut search = agree::unanimous(comm, begun)?;
    loop {
        let next = || {
            let found = match &mut search {
                Some(search) => (candidate(settings, search, allowed)?, search.newest()),
                None => (None, None),
            };
            if found.0.is_none() {
                check_overlooked_checkpoints(settings, recorded)?;
                if resume != ResumeFrom::Never {
                    check_store_is_not_lost(settings, store.as_ref())?;
                }
            }
            Ok::<_, Error>(found)
        };
        let (manifest, newest): (Option<Manifest>, Option<u64>) = agree::on_root(comm, next)?;
        let Some(manifest) = manifest else { return Ok((None, newest)) };
        Failpoint::ResumeChosen.reach();
        match read_together(comm, settings, store.as_ref(), &manifest)? {
            Ok(buffers) => return Ok((Some(Checkpoint { manifest, buffers }), newest)),
            Err(damaged) => {
                let rejected = search.as_mut().map_or(Ok(()), |search| search.reject(manifest.step, damaged));
                agree::unanimous(comm, rejected.map_err(classify_store_error))?;
            }
        }
    }
}

/// The store to search; `None` if there is nothing to resume from and `resume` does not require it.
fn open(settings: &Settings, resume: ResumeFrom) -> Result<Option<Store>, Error> {
    let store = match Store::open_existing_with(&settings.checkpoint_uri(), store_options(settings)) {
        Err(CheckpointError::Absent { .. }) if matches!(resume, ResumeFrom::Never | ResumeFrom::Auto) => {
            return Ok(None);
        }
        opened => opened.map_err(classify_store_error)?,
    };
    if resume != ResumeFrom::Never {
        return Ok(Some(store));
    }
    let Some(newest) = store.list()?.first().copied() else { return Ok(None) };
    let message = format!(
        "{} holds checkpoints up to step {newest}, which a run from the start would mix with its own",
        store.uri()
    );
    Err(Error::new(ErrorKind::ResumeRefused, message)
        .or(Remedy::OtherRunDir)
        .or(Remedy::Do("move them away".into()))
        .or(Remedy::Resume))
}

fn candidate(settings: &Settings, search: &mut Search, allowed: &[String]) -> Result<Option<Manifest>, Error> {
    let found = search.candidate().map_err(classify_store_error)?;
    if let Some(manifest) = &found {
        check_same_run(settings, manifest, allowed)?;
    }
    Ok(found)
}

/// The report of a rank that could not read its shards.
#[derive(Serialize, Deserialize)]
enum ShardReadReport {
    Damaged { path: String, reason: String },
    Failed(Error),
}

impl From<CheckpointError> for ShardReadReport {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Damaged { path, reason, .. } => Self::Damaged { path, reason },
            error => Self::Failed(error.into()),
        }
    }
}

impl From<TchError> for ShardReadReport {
    fn from(error: TchError) -> Self {
        Self::Failed(error.into())
    }
}

/// Reads a checkpoint together, each rank its own shards into buffers for all; from `store`, or one opened for this if
/// it is `None`. If the checkpoint is damaged, every rank returns the same damage.
pub fn read_together(
    comm: &dyn Collective,
    settings: &Settings,
    store: Option<&Store>,
    manifest: &Manifest,
) -> Result<Result<Vec<Tensor>, CheckpointError>, Failure> {
    let uri = settings.checkpoint_uri();
    let read = || -> Result<Vec<Tensor>, ShardReadReport> {
        let opened;
        let store = match store {
            Some(store) => store,
            None => {
                opened = Store::open_existing_with(&uri, store_options(settings))?;
                &opened
            }
        };
        // Not cleared: the shards fill the whole of it.
        let empty = |len: u64| Tensor::f_empty([len as i64], (Kind::Float, Device::Cpu));
        let buffers = manifest.buffers.iter().map(|b| empty(b.len)).collect::<Result<Vec<_>, _>>()?;
        for (index, entry) in manifest.shards.iter().enumerate().skip(comm.rank()).step_by(comm.size()) {
            let mut ranges = ranges(manifest, &buffers, entry);
            tch_ext::with_f32_slices(&mut ranges, |places| store.read_shard(manifest, index, places))??;
        }
        Ok(buffers)
    };
    let (buffers, report) = match read() {
        Ok(buffers) => (buffers, None),
        Err(report) => (Vec::new(), Some(report)),
    };
    let mut read = Ok(buffers);
    for (rank, report) in agree::exchange(comm, report.as_ref())?.into_iter().enumerate() {
        match report {
            Some(ShardReadReport::Failed(error)) => return Err(Agreed::of_rank(rank, error).into()),
            Some(ShardReadReport::Damaged { path, reason }) if read.is_ok() => {
                read = Err(CheckpointError::Damaged { uri: uri.clone(), path, reason });
            }
            _ => {}
        }
    }
    Ok(read)
}

/// The parts of the manifest's `buffers` that a shard holds, in its order.
pub(super) fn ranges(manifest: &Manifest, buffers: &[Tensor], entry: &ShardEntry) -> Vec<Tensor> {
    let range = |hold: &ShardRange| {
        let place = manifest.buffers.iter().position(|buffer| buffer.name == hold.buffer);
        let place = place.expect("the manifest agrees with itself");
        buffers[place].narrow(0, hold.start as i64, (hold.end - hold.start) as i64)
    };
    entry.holds.iter().map(range).collect()
}

/// Classifies an error: a missing or incompatible checkpoint refuses the resume; anything else is a failure of the
/// store.
fn classify_store_error(error: CheckpointError) -> Error {
    match error {
        CheckpointError::Absent { .. } | CheckpointError::NotFound { .. } | CheckpointError::Incompatible { .. } => {
            Error::caused_by(ErrorKind::ResumeRefused, error)
        }
        _ => error.into(),
    }
}

/// Refuses a start in a run directory with logged steps if the store does not contain the run's identity. Such a
/// store is an unmounted volume or a misspelt address, and a fresh start would wipe the logs.
fn check_store_is_not_lost(settings: &Settings, store: Option<&Store>) -> Result<(), Error> {
    let log = Path::new(&settings.run.dir).join("metrics.jsonl");
    let logged = log.metadata().is_ok_and(|metadata| metadata.len() > 0);
    let known = store.map(Store::find_run).transpose()?.flatten();
    if !logged || known.is_some() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::ResumeRefused,
        format!("{} has logged steps, but {} knows nothing of the run", settings.run.dir, settings.checkpoint_uri()),
    )
    .or(Remedy::Do("bring the checkpoints back".into()))
    .or(Remedy::Do("correct checkpoint.uri".into()))
    .or(Remedy::OtherRunDir)
    .or(Remedy::StartAfresh))
}

/// What allowing these names to change allows the data set to do.
pub fn allowed_data_change(names: &[String]) -> DataChange {
    let of = |name: &str| match name {
        name if name == DATA || OTHER_DATA.contains(&name) => DataChange::Images,
        name if OTHER_ORDER.contains(&name) => DataChange::Order,
        _ => DataChange::Nothing,
    };
    names.iter().map(|name| of(name)).max().unwrap_or(DataChange::Nothing)
}

/// Whether `key` may change if the user allows `name` to change.
fn allows(name: &str, key: &str) -> bool {
    name == key || (name == DATA && key.starts_with("data."))
}

/// Whether the checkpoint is an imported model that has not been trained here: only its network and its process are
/// given, and the configuration that trains it first decides the rest.
fn is_untrained_import(settings: &Settings) -> bool {
    settings.data.kind == DataKind::Unknown
}

fn check_same_run(settings: &Settings, manifest: &Manifest, allowed: &[String]) -> Result<(), Error> {
    let refuse = |message: String| Error::new(ErrorKind::ResumeRefused, message);
    let theirs: Settings = match serde_json::from_value(manifest.config.clone()) {
        Ok(settings) => settings,
        Err(e) => {
            return Err(refuse(format!(
                "the checkpoint of step {} was written by {} with a configuration that this version cannot read ({e}); resume \
                 with that version.",
                manifest.step, manifest.program
            )));
        }
    };
    let (was, is) = (Learner::of(&theirs), Learner::of(settings));
    if was != is {
        let (theirs, ours) = (was.name(), is.name());
        let message = format!("the checkpoint of step {} holds {theirs}, but this run trains {ours}", manifest.step);
        return Err(refuse(message).or(Remedy::OtherRunDir).or(Remedy::ResumeAs(was)));
    }
    let imported = is_untrained_import(&theirs);
    let differences = settings.diff(&theirs);
    let list = |differences: &[Difference]| {
        let each = differences.iter().map(|d| format!("{} (checkpoint {}, now {})", d.key, d.theirs, d.ours));
        each.collect::<Vec<_>>().join("; ")
    };
    for (fixed, because) in [
        (if imported { Vec::new() } else { other_position(&differences) }, "the order of the images follows from it"),
        (other_parameters(settings, &theirs, &differences), "the network would have other parameters"),
    ] {
        if !fixed.is_empty() {
            let message = format!(
                "the checkpoint of step {} was trained with other settings that cannot change within a run: {}, because \
                 {because}",
                manifest.step,
                list(&fixed)
            );
            return Err(refuse(message).or(Remedy::Do("set them back".into())).or(Remedy::OtherRunDir));
        }
    }
    let shaped_by_end = settings.train.lr_schedule.depends_on_last_step();
    let (learned, free): (Vec<_>, Vec<_>) = differences.into_iter().partition(|d| {
        // The last step is part of the shape of the learning rate.
        let learned = d.kind == DifferenceKind::Learned || (d.key == "train.steps" && shaped_by_end);
        let given = !imported || ["model.", "diffusion."].iter().any(|section| d.key.starts_with(section));
        learned && given && !allowed.iter().any(|name| allows(name, &d.key))
    });
    if !learned.is_empty() {
        let message =
            format!("the checkpoint of step {} was trained with other settings: {}", manifest.step, list(&learned));
        return Err(refuse(message)
            .or(Remedy::Do("set them back".into()))
            .or(Remedy::OtherRunDir)
            .or(Remedy::AllowChange(learned.into_iter().map(|d| d.key).collect())));
    }
    for d in free {
        tracing::info!("changed since the checkpoint: {} was {}, is now {}", d.key, d.theirs, d.ours);
    }
    Ok(())
}

/// Of the keys that differ, the one that determines a step's position in the order of all images.
fn other_position(differences: &[Difference]) -> Vec<Difference> {
    differences.iter().filter(|d| d.key == "train.global_batch").cloned().collect()
}

/// Of the keys that differ, those that change the parameters of the network from those in the checkpoint.
fn other_parameters(ours: &Settings, theirs: &Settings, differences: &[Difference]) -> Vec<Difference> {
    let held = parameters(theirs);
    if parameters(ours) == held {
        return Vec::new();
    }
    let learned: Vec<Difference> = differences.iter().filter(|d| d.kind == DifferenceKind::Learned).cloned().collect();
    let alone = |d: &&Difference| parameters_with(theirs, ours, &d.key) != held;
    let responsible: Vec<Difference> = learned.iter().filter(alone).cloned().collect();
    // Several keys may change the parameters only in combination.
    if responsible.is_empty() { learned } else { responsible }
}

/// The parameters of the network that `settings` describe; `None` if they do not describe a valid network.
fn parameters(settings: &Settings) -> Option<Layout> {
    Some(Network::new(settings.architecture()).ok()?.layout().clone())
}

/// The parameters of the network that `theirs` describe with the value of `key` taken from `ours`.
fn parameters_with(theirs: &Settings, ours: &Settings, key: &str) -> Option<Layout> {
    let pointer = format!("/{}", key.replace('.', "/"));
    let mut changed = serde_json::to_value(theirs).ok()?;
    *changed.pointer_mut(&pointer)? = serde_json::to_value(ours).ok()?.pointer(&pointer)?.clone();
    parameters(&serde_json::from_value(changed).ok()?)
}
