//! The checkpoint to go on from: chosen by rank 0, read by all ranks, refused where it is of another run.

use std::path::Path;

use ddpm_checkpoint::{CheckpointError, Failpoint, Manifest, Search, ShardData, Store, Want};
use ddpm_comm::Collective;
use ddpm_config::{Difference, DifferenceKind, LrShape, Settings};
use ddpm_nn::{Layout, Network};
use serde::{Deserialize, Serialize};

use crate::assemble;
use crate::cli::Resume;
use crate::coordinator::{Learner, decode, encode, exchange, from_rank_0, unanimous};
use crate::failure::{Exit, Failure};
use crate::run_dir::refuse_unseen;

/// What `--allow-change` calls the data as a whole: which images there are, and all keys of `[data]`.
pub const DATA: &str = "data";
/// The keys that say which images and classes there are: who allows one of them to change allows what follows.
const OTHER_DATA: [&str; 4] = ["data.count", "data.kind", "data.labels", "data.path"];

/// A checkpoint, read by all ranks together.
pub struct Checkpoint {
    /// Its manifest, the same on every rank.
    pub manifest: Manifest,
    /// The shards that this rank has read and verified: rank i of w reads shards i, i+w, ...
    pub shards: Vec<ShardData>,
}

/// Finds the checkpoint to go on from, and the newest there is, of whatever worth; refuses one of another run. Each byte is
/// read once, by one rank, and hashed; one that is damaged sends all ranks to the next older checkpoint. Nothing is
/// written yet. `recorded` is the `config.toml` that another run wrote, if that is where the settings come from.
pub fn choose(
    comm: &dyn Collective,
    settings: &Settings,
    resume: Resume,
    allowed: &[String],
    recorded: Option<&Path>,
) -> Result<(Option<Checkpoint>, Option<u64>), Failure> {
    let opened = if comm.rank() == 0 { open(settings, resume) } else { Ok(None) };
    let store = unanimous(comm, opened)?;
    let want = match resume {
        Resume::Step(step) => Want::Step(step),
        Resume::Auto | Resume::Never => Want::Latest,
    };
    let begun = store.as_ref().map(|store| store.search(want).map_err(unfit)).transpose();
    let mut search = unanimous(comm, begun)?;
    loop {
        let next = || {
            let found = match &mut search {
                Some(search) => (candidate(settings, search, allowed)?, search.newest()),
                None => (None, None),
            };
            if found.0.is_none() {
                refuse_unseen(settings, recorded)?;
                if resume != Resume::Never {
                    refuse_lost_store(settings, store.as_ref())?;
                }
            }
            Ok(found)
        };
        let (manifest, newest): (Option<Manifest>, Option<u64>) = from_rank_0(comm, next)?;
        let Some(manifest) = manifest else { return Ok((None, newest)) };
        Failpoint::ResumeChosen.reach();
        match read_together(comm, settings, &manifest)? {
            Ok(shards) => return Ok((Some(Checkpoint { manifest, shards }), newest)),
            Err(damaged) => {
                let rejected = search.as_mut().map_or(Ok(()), |search| search.reject(manifest.step, damaged));
                unanimous(comm, rejected.map_err(unfit))?;
            }
        }
    }
}

/// The store to search; none where there is nothing to go on from, nor should there be.
fn open(settings: &Settings, resume: Resume) -> Result<Option<Store>, Failure> {
    let store = match Store::open_existing_with(&settings.checkpoint_uri(), assemble::store_options(settings)) {
        Err(CheckpointError::Absent { .. }) if matches!(resume, Resume::Never | Resume::Auto) => return Ok(None),
        opened => opened.map_err(unfit)?,
    };
    if resume != Resume::Never {
        return Ok(Some(store));
    }
    let Some(newest) = store.list()?.first().copied() else { return Ok(None) };
    Err(Failure::new(
        Exit::ResumeRefused,
        format!(
            "{} holds checkpoints up to step {newest}, which a run from the start would mix with its own. Give \
             another run.dir (--set run.dir=...), move them away, or go on with --resume auto.",
            store.uri()
        ),
    ))
}

fn candidate(settings: &Settings, search: &mut Search, allowed: &[String]) -> Result<Option<Manifest>, Failure> {
    let found = search.candidate().map_err(unfit)?;
    if let Some(manifest) = &found {
        refuse_other_run(settings, manifest, allowed)?;
    }
    Ok(found)
}

/// What this rank has to tell of the shards that it was to read.
#[derive(Default, PartialEq, Serialize, Deserialize)]
enum Told {
    #[default]
    Sound,
    Damaged {
        path: String,
        reason: String,
    },
    /// The failure as [`encode`] writes it.
    Failed(String),
}

/// Reads a checkpoint, every rank its shards; or says, on every rank, where it is damaged.
pub fn read_together(
    comm: &dyn Collective,
    settings: &Settings,
    manifest: &Manifest,
) -> Result<Result<Vec<ShardData>, CheckpointError>, Failure> {
    let uri = settings.checkpoint_uri();
    let read = || -> Result<Vec<ShardData>, CheckpointError> {
        let store = Store::open_existing_with(&uri, assemble::store_options(settings))?;
        let ours = (comm.rank()..manifest.shards.len()).step_by(comm.size());
        ours.map(|index| store.read_shard(manifest, index)).collect()
    };
    let (shards, told) = match read() {
        Ok(shards) => (shards, Told::Sound),
        Err(CheckpointError::Damaged { path, reason, .. }) => (Vec::new(), Told::Damaged { path, reason }),
        Err(error) => (Vec::new(), Told::Failed(encode(&error.into()))),
    };
    let mut read = Ok(shards);
    for (rank, told) in exchange(comm, &told)?.into_iter().enumerate() {
        match told {
            Told::Failed(text) => return Err(decode(rank, &text)),
            Told::Damaged { path, reason } if read.is_ok() => {
                read = Err(CheckpointError::Damaged { uri: uri.clone(), path, reason });
            }
            _ => {}
        }
    }
    Ok(read)
}

/// A checkpoint that is not there, or of a later version, refuses the resume; all else is a failure of the store.
fn unfit(error: CheckpointError) -> Failure {
    match error {
        CheckpointError::Absent { .. } | CheckpointError::NotFound { .. } | CheckpointError::Incompatible { .. } => {
            Failure::new(Exit::ResumeRefused, error)
        }
        _ => error.into(),
    }
}

/// A run that has logged steps has a store with its name in it; a store without is an unmounted volume, or a misspelt
/// address, and a fresh start would wipe the logs.
fn refuse_lost_store(settings: &Settings, store: Option<&Store>) -> Result<(), Failure> {
    let log = Path::new(&settings.run.dir).join("metrics.jsonl");
    let logged = log.metadata().is_ok_and(|metadata| metadata.len() > 0);
    let known = store.map(Store::find_run).transpose()?.flatten();
    if !logged || known.is_some() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::ResumeRefused,
        format!(
            "{} has logged steps, but {} knows nothing of the run. Bring the checkpoints back or correct checkpoint.uri; \
             to start afresh, give another run.dir or --resume never.",
            settings.run.dir,
            settings.checkpoint_uri()
        ),
    ))
}

/// Whether who allows `name` to change allows another data set.
pub fn allows_other_data(name: &str) -> bool {
    name == DATA || OTHER_DATA.contains(&name)
}

/// Whether `key` may change where the user allows `name`.
fn allows(name: &str, key: &str) -> bool {
    name == key || (name == DATA && key.starts_with("data."))
}

fn refuse_other_run(settings: &Settings, manifest: &Manifest, allowed: &[String]) -> Result<(), Failure> {
    let refuse = |message: String| Err(Failure::new(Exit::ResumeRefused, message));
    let theirs: Settings = match serde_json::from_value(manifest.config.clone()) {
        Ok(settings) => settings,
        Err(e) => {
            return refuse(format!(
                "the checkpoint of step {} was written by {} with a configuration that this version cannot read ({e}); go on \
             with that version.",
                manifest.step, manifest.program
            ));
        }
    };
    let (was, is) = (Learner::of(&theirs), Learner::of(settings));
    if was != is {
        let ((theirs, command), (ours, _)) = (was.described(), is.described());
        return refuse(format!(
            "the checkpoint of step {} is {theirs}'s, and this command trains {ours}; start in another run.dir (--set \
             run.dir=...), or go on with {command}.",
            manifest.step
        ));
    }
    let differences = settings.diff(&theirs);
    let list = |differences: &[Difference]| {
        let each = differences.iter().map(|d| format!("{} (checkpoint {}, now {})", d.key, d.theirs, d.ours));
        each.collect::<Vec<_>>().join("; ")
    };
    for (fixed, because) in [
        (other_position(&differences), "the order of the images follows from it"),
        (other_parameters(settings, &theirs, &differences), "the network would have other parameters"),
    ] {
        if !fixed.is_empty() {
            return refuse(format!(
                "the checkpoint of step {} was trained with other settings that cannot change within a run: {}, because \
                 {because}. Set them back, or start in another run.dir (--set run.dir=...).",
                manifest.step,
                list(&fixed)
            ));
        }
    }
    let cosine = settings.train.lr_schedule == LrShape::Cosine;
    let (learned, free): (Vec<_>, Vec<_>) = differences.into_iter().partition(|d| {
        // The end of a cosine is part of its shape.
        let learned = d.kind == DifferenceKind::Learned || (d.key == "train.steps" && cosine);
        learned && !allowed.iter().any(|name| allows(name, &d.key))
    });
    if !learned.is_empty() {
        let allow: Vec<String> = learned.iter().map(|d| format!("--allow-change {}", d.key)).collect();
        return refuse(format!(
            "the checkpoint of step {} was trained with other settings: {}. Set them back, start in another run.dir, or go on \
             all the same with {}.",
            manifest.step,
            list(&learned),
            allow.join(" ")
        ));
    }
    for d in free {
        tracing::info!("changed since the checkpoint: {} was {}, is now {}", d.key, d.theirs, d.ours);
    }
    Ok(())
}

/// Of the keys that differ, that which decides the position of a step in the order of all images.
fn other_position(differences: &[Difference]) -> Vec<Difference> {
    differences.iter().filter(|d| d.key == "train.global_batch").cloned().collect()
}

/// Of the keys that differ, those that give the network other parameters than the checkpoint holds.
fn other_parameters(ours: &Settings, theirs: &Settings, differences: &[Difference]) -> Vec<Difference> {
    let held = parameters(theirs);
    if parameters(ours) == held {
        return Vec::new();
    }
    let learned: Vec<Difference> = differences.iter().filter(|d| d.kind == DifferenceKind::Learned).cloned().collect();
    let alone = |d: &&Difference| parameters_with(theirs, ours, &d.key) != held;
    let guilty: Vec<Difference> = learned.iter().filter(alone).cloned().collect();
    // Keys may do together what none of them does alone.
    if guilty.is_empty() { learned } else { guilty }
}

/// The parameters of the network that `settings` describe; none if they describe none.
fn parameters(settings: &Settings) -> Option<Layout> {
    Some(Network::new(settings.architecture()).ok()?.layout().clone())
}

/// The same of `theirs` with `key` as `ours` have it.
fn parameters_with(theirs: &Settings, ours: &Settings, key: &str) -> Option<Layout> {
    let pointer = format!("/{}", key.replace('.', "/"));
    let mut changed = serde_json::to_value(theirs).ok()?;
    *changed.pointer_mut(&pointer)? = serde_json::to_value(ours).ok()?.pointer(&pointer)?.clone();
    parameters(&serde_json::from_value(changed).ok()?)
}
