//! `supervise`: keeps a job that trains running, in a process that is no rank.

use clap::Parser;
use ddpm_comm::is_rank;
use ddpm_config::Settings;
use ddpm_model::{Error, Learner};
use ddpm_supervise::{Backoff, Policy, Request, Task, supervise};
use ddpm_train::ResumeFrom;

use crate::cli::{Cli, Command, SuperviseArgs, TrainArgs};
use crate::output::say;
use crate::plan::resolve_for;
use crate::signals::Signals;

/// Supervises a job; returns the exit status.
pub fn run(args: &SuperviseArgs, signals: &Signals) -> Result<i32, Error> {
    if is_rank() {
        return Err(Error::config("supervise starts the launcher itself. Start it without one, and put that after --"));
    }
    signals.defer_end();
    let report = supervise(Task {
        command: args.command.clone(),
        settings: &settings(&args.command)?,
        hosts: args.hosts.clone(),
        min_ranks: args.min_ranks,
        probe: args.probe.clone(),
        policy: Policy {
            max_restarts: args.max_restarts,
            window: args.window,
            backoff: Backoff { first: args.backoff, most: args.max_backoff },
            probe_every: args.probe_every,
            settle: args.settle,
        },
        request: &|| match signals.stop().requested() {
            true if signals.insisted() => Request::End,
            true => Request::Save,
            false => Request::GoOn,
        },
        events: args.events.clone(),
    })
    .map_err(Error::config)?;
    say(&report.message);
    Ok(report.exit_code)
}

/// The settings with which the command trains. A launcher and its options come before those of `train`.
fn settings(command: &[String]) -> Result<Settings, Error> {
    let mut fault = "the command does not train. End it with `ddpm-dist train` and its options".to_owned();
    for (at, word) in command.iter().enumerate() {
        if !["train", "train-classifier"].contains(&word.as_str()) {
            continue;
        }
        let words = ["ddpm-dist"].into_iter().chain(command[at..].iter().map(String::as_str));
        match Cli::try_parse_from(words).map(|cli| cli.command) {
            Ok(Command::Train(args)) => return resolve(&args, Learner::Diffusion),
            Ok(Command::TrainClassifier(args)) => return resolve(&args, Learner::Classifier),
            Ok(_) => {}
            Err(error) => fault = error.to_string().trim_start_matches("error: ").trim_end().to_owned(),
        }
    }
    Err(Error::config(fault))
}

fn resolve(args: &TrainArgs, learner: Learner) -> Result<Settings, Error> {
    if args.resume != ResumeFrom::Auto {
        return Err(Error::config("every start of the job must resume from its newest checkpoint. Leave --resume out"));
    }
    if ["-", "/dev/", "/proc/"].iter().any(|pipe| args.config.config.starts_with(pipe)) {
        return Err(Error::config(
            "every start of the job reads the configuration, so it cannot be a pipe. Name a file",
        ));
    }
    resolve_for(1, args, learner)
}
