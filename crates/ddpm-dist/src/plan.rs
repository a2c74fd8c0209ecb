//! The settings of a command and the plan of a training run, made by rank 0 and the same on every rank.

use std::path::Path;

use ddpm_comm::{Collective, agree};
use ddpm_config::Settings;
use ddpm_model::{Error, Failure, Learner};
use ddpm_train::{DATA, Plan};
use serde_json::Value;

use crate::cli::{ConfigArgs, TrainArgs};
use crate::failure::{command, program};

/// Makes the plan for a run on rank 0; all ranks return it, or the same failure.
pub fn plan(comm: &dyn Collective, args: &TrainArgs, learner: Learner) -> Result<Plan, Failure> {
    let settings = agree::on_root(comm, || resolve_for(comm.size(), args, learner))?;
    if args.dry_run {
        return Ok(Plan::fresh(settings).by(program()));
    }
    let plan = Plan::resuming(comm, settings, args.resume, &args.allow_change, recorded(&args.config))?;
    Ok(plan.by(program()))
}

/// The configuration file, if it is the `config.toml` that a run wrote and no override moves the run elsewhere.
fn recorded(config: &ConfigArgs) -> Option<&Path> {
    let elsewhere = |set: &String| ["run.dir", "run.name"].contains(&set.split('=').next().unwrap_or_default().trim());
    let file = Path::new(&config.config);
    (file.ends_with("config.toml") && !config.overrides.iter().any(elsewhere)).then_some(file)
}

/// Resolves a configuration on rank 0, with `more` overrides after the user's; all ranks return it, or the same
/// failure.
pub fn settings(comm: &dyn Collective, config: &ConfigArgs, more: &[String]) -> Result<Settings, Failure> {
    Ok(agree::on_root(comm, || resolve(comm.size(), config, more))?)
}

/// The settings with which `args` train on `world` ranks.
pub fn resolve_for(world: usize, args: &TrainArgs, learner: Learner) -> Result<Settings, Error> {
    let mut config = args.config.clone();
    if learner == Learner::Classifier {
        // Inserted first: a classifier can be trained from a diffusion model's file, and a --set that contradicts it
        // still takes effect, and is refused.
        config.overrides.insert(0, "model.kind=classifier".into());
    }
    let steps = args.steps.map(|steps| format!("train.steps={steps}"));
    // A JSON string is a TOML string.
    let init_from = args.init_from.as_ref().map(|source| format!("train.init_from={}", Value::from(source.as_str())));
    let skip = args.init_skip_mismatched.then(|| "train.init_skip_mismatched=true".to_owned());
    let short: Vec<String> = [steps, init_from, skip].into_iter().flatten().collect();
    let settings = resolve(world, &config, &short)?;
    check_learner(&settings, learner)?;
    for key in args.allow_change.iter().filter(|name| *name != DATA) {
        ddpm_config::check_key(key, "--allow-change")?;
    }
    Ok(settings)
}

fn check_learner(settings: &Settings, learner: Learner) -> Result<(), Error> {
    let set = Learner::of(settings);
    if set == learner {
        return Ok(());
    }
    Err(Error::config(format!(
        "model.kind describes {}, and this command trains {}; use {}, or change model.kind",
        set.name(),
        learner.name(),
        command(set)
    )))
}

/// Resolves a configuration for `world` ranks, with `more` overrides after the user's.
pub fn resolve(world: usize, config: &ConfigArgs, more: &[String]) -> Result<Settings, Error> {
    let settings = Settings::load(&config.config, &[&config.overrides, more].concat())?;
    settings.check_world(world)?;
    if settings.checkpoint_uri().starts_with("memory:") {
        let message = "checkpoint.uri is in memory, where no resumed run can find it; give a folder or a bucket";
        return Err(Error::config(message));
    }
    Ok(settings)
}
