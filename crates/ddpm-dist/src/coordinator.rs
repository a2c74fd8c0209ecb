//! What ranks agree on before and between steps: one plan from rank 0, and a common end if any rank fails.

use std::path::Path;
use std::sync::Arc;

use ddpm_comm::{Collective, CommError, Memory, Verdict, Vote, Wanted, World};
use ddpm_config::{Backend, ModelKind, Settings};
use ddpm_data::Source;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cli::{ConfigArgs, TrainArgs};
use crate::failure::{Exit, Failure};
use crate::resume::{self, Checkpoint};
use crate::signals::StopRequest;

/// What rank 0 has decided, the same on every rank.
pub struct Plan {
    /// The resolved configuration.
    pub settings: Settings,
    /// The checkpoint to go on from.
    pub resume: Option<Checkpoint>,
    /// The newest checkpoint in the store, of whatever worth.
    pub newest: Option<u64>,
    /// Whether a resume may go on with another data set.
    pub allows_other_data: bool,
}

/// What a command trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learner {
    /// A diffusion model: `train`.
    Diffusion,
    /// A classifier of noised images: `train-classifier`.
    Classifier,
}

impl Learner {
    /// What trains with these settings.
    pub fn of(settings: &Settings) -> Self {
        match settings.model.kind {
            ModelKind::Classifier => Self::Classifier,
            ModelKind::Unet | ModelKind::Small => Self::Diffusion,
        }
    }

    /// Its name and the command that trains it.
    pub fn described(self) -> (&'static str, &'static str) {
        match self {
            Self::Diffusion => ("a diffusion model", "train"),
            Self::Classifier => ("a classifier", "train-classifier"),
        }
    }
}

/// Rank 0 makes the plan for a run; all ranks return it, or the same failure.
pub fn plan(comm: &dyn Collective, args: &TrainArgs, learner: Learner) -> Result<Plan, Failure> {
    let settings = from_rank_0(comm, || resolve_for(comm.size(), args, learner))?;
    let (resume, newest) = match args.dry_run {
        true => (None, None),
        false => resume::choose(comm, &settings, args.resume, &args.allow_change, recorded(&args.config))?,
    };
    Ok(Plan {
        settings,
        resume,
        newest,
        allows_other_data: args.allow_change.iter().any(|name| resume::allows_other_data(name)),
    })
}

/// The `config.toml` that a run wrote down, where that is the configuration and says where the run is.
fn recorded(config: &ConfigArgs) -> Option<&Path> {
    let elsewhere = |set: &String| ["run.dir", "run.name"].contains(&set.split('=').next().unwrap_or_default().trim());
    let file = Path::new(&config.config);
    (file.ends_with("config.toml") && !config.overrides.iter().any(elsewhere)).then_some(file)
}

/// Rank 0 resolves a configuration, with `more` overrides after the user's; all ranks return it, or the same failure.
pub fn settings(comm: &dyn Collective, config: &ConfigArgs, more: &[String]) -> Result<Settings, Failure> {
    from_rank_0(comm, || resolve(comm.size(), config, more))
}

/// What rank 0 makes, on every rank from the same bytes; or its failure, on every rank.
pub fn from_rank_0<T: Serialize + DeserializeOwned>(
    comm: &dyn Collective,
    make: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let made = if comm.rank() == 0 { Some(make()) } else { None };
    let bytes = match &made {
        Some(Ok(plan)) => serde_json::to_vec(plan).expect("settings and manifests are plain data"),
        _ => Vec::new(),
    };
    // Rank 0's failure reaches all before anybody waits for a plan that does not come.
    unanimous(comm, made.transpose().map(drop))?;
    let bytes = comm.broadcast_bytes(bytes, 0);
    if !alike(comm, &Sha256::digest(&bytes)) {
        let message = "the ranks received different plans, so the network or memory corrupts data; check the machines";
        return Err(Failure::internal(message).everywhere());
    }
    serde_json::from_slice(&bytes).map_err(|e| {
        Failure::internal(format!("this rank cannot read rank 0's plan ({e}); run the same program on every rank"))
    })
}

fn resolve_for(world: usize, args: &TrainArgs, learner: Learner) -> Result<Settings, Failure> {
    let mut config = args.config.clone();
    if learner == Learner::Classifier {
        // First, so that one can be trained from a diffusion model's own file, and a --set against it is seen.
        config.overrides.insert(0, "model.kind=classifier".into());
    }
    let steps: Vec<String> = args.steps.iter().map(|steps| format!("train.steps={steps}")).collect();
    let settings = resolve(world, &config, &steps)?;
    refuse_other_learner(&settings, learner)?;
    for key in args.allow_change.iter().filter(|name| *name != resume::DATA) {
        ddpm_config::check_key(key, "--allow-change")?;
    }
    Ok(settings)
}

fn refuse_other_learner(settings: &Settings, learner: Learner) -> Result<(), Failure> {
    let set = Learner::of(settings);
    if set == learner {
        return Ok(());
    }
    let ((theirs, command), (ours, _)) = (set.described(), learner.described());
    Err(Failure::usage(format!(
        "model.kind describes {theirs}, and this command trains {ours}; use {command}, or change model.kind"
    )))
}

fn resolve(world: usize, config: &ConfigArgs, more: &[String]) -> Result<Settings, Failure> {
    let settings = Settings::load(&config.config, &[&config.overrides, more].concat())?;
    settings.check_world(world)?;
    check_available(&settings)?;
    Ok(settings)
}

/// The collective over which gradients in `memory` go, as configured; says which one it is.
pub fn transport(world: &World, backend: Backend, memory: Memory) -> Result<Arc<dyn Collective>, Failure> {
    let wanted = match backend {
        Backend::Auto => Wanted::Auto,
        Backend::Solo | Backend::Mpi => Wanted::Host,
        Backend::Nccl => Wanted::Nccl,
    };
    let selected = world.select(wanted, memory).map_err(|error| match error {
        CommError::NoNccl { .. } => Failure::usage(error).everywhere(),
        error => Failure::internal(error),
    })?;
    if world.size() > 1 {
        tracing::info!("{}", selected.why);
    }
    Ok(selected.collective)
}

/// Whether all ranks have the same bytes; the same answer on every rank.
fn alike(comm: &dyn Collective, bytes: &[u8]) -> bool {
    let all = comm.gather_bytes(bytes);
    all.iter().all(|theirs| *theirs == all[0])
}

/// Refuses a data set that is not the same on every rank.
pub fn same_data(comm: &dyn Collective, source: &dyn Source) -> Result<(), Failure> {
    if alike(comm, format!("{} {} {}", source.len(), source.fingerprint(), source.describe()).as_bytes()) {
        return Ok(());
    }
    let message = "the ranks see different data sets; make data.path the same files on every machine";
    Err(Failure::new(Exit::Storage, message).everywhere())
}

/// This rank's value if every rank has one, else the failure of the lowest rank that failed, on every rank.
pub fn unanimous<T>(comm: &dyn Collective, result: Result<T, Failure>) -> Result<T, Failure> {
    let vote = match &result {
        Ok(_) => Vote::Ok,
        Err(failure) => Vote::Failed(encode(failure)),
    };
    match comm.vote(vote) {
        Verdict::Failed { rank, message } => Err(decode(rank, &message)),
        Verdict::Ok | Verdict::Stop => result,
    }
}

/// Whether any rank was asked to stop; the same answer on every rank.
pub fn stop_asked(comm: &dyn Collective, stop: &StopRequest) -> bool {
    comm.vote(if stop.asked() { Vote::Stop } else { Vote::Ok }) == Verdict::Stop
}

/// Ends a run that is asked to stop while it starts, on every rank alike.
pub fn refuse_if_asked_to_stop(comm: &dyn Collective, stop: &StopRequest) -> Result<(), Failure> {
    if stop_asked(comm, stop) {
        let message = "stopped on request before the first step; the same command starts again";
        return Err(Failure::new(Exit::Stopped, message).everywhere());
    }
    Ok(())
}

/// What a rank tells the others before each step.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ballot<N> {
    /// It was asked to stop.
    pub stop: bool,
    /// It cannot go on; the failure as [`encode`] writes it.
    pub failure: Option<String>,
    /// What it has to tell of the save under way.
    pub news: N,
}

/// What every rank has to tell, in rank order, on every rank. Ranks with nothing to tell, a default, send no bytes.
pub fn exchange<T>(comm: &dyn Collective, ours: &T) -> Result<Vec<T>, Failure>
where
    T: Default + PartialEq + Serialize + DeserializeOwned,
{
    let silent = *ours == T::default();
    let bytes = if silent { Vec::new() } else { serde_json::to_vec(ours).map_err(Failure::internal)? };
    let read = |bytes: &Vec<u8>| match bytes.as_slice() {
        [] => Ok(T::default()),
        bytes => serde_json::from_slice(bytes).map_err(Failure::internal),
    };
    comm.gather_bytes(&bytes).iter().map(read).collect()
}

/// A failure as the text of a vote.
pub fn encode(failure: &Failure) -> String {
    format!("{} {}", failure.exit.code(), failure.message)
}

/// The failure that rank `rank` voted.
pub fn decode(rank: usize, text: &str) -> Failure {
    let (code, message) = text.split_once(' ').unwrap_or(("", text));
    let exits = [Exit::Usage, Exit::ResumeRefused, Exit::Storage, Exit::Diverged, Exit::OutOfMemory, Exit::Stopped];
    let exit = exits.into_iter().find(|exit| exit.code().to_string() == code).unwrap_or(Exit::Internal);
    let message = if rank == 0 { message.into() } else { format!("rank {rank}: {message}") };
    Failure { exit, message, everywhere: true }
}

/// Refuses what the settings may ask for and this version does not have.
fn check_available(settings: &Settings) -> Result<(), Failure> {
    if settings.checkpoint_uri().starts_with("memory:") {
        let message = "checkpoint.uri is in memory, where no resumed run finds it; give a folder or a bucket";
        return Err(Failure::usage(message));
    }
    Ok(())
}
