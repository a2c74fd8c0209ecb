//! `supervise`: keeps a job that trains running, in a process that is no rank.

use std::fs::File;
use std::io::{self, Write};

use clap::Parser;
use ddpm_comm::is_rank;
use ddpm_config::Settings;
use ddpm_model::{Error, ErrorKind, Learner};
use ddpm_supervise::{Backoff, Ending, Policy, Request, Task, Verdict, read_hosts, supervise};
use ddpm_train::ResumeFrom;

use crate::cli::{Cli, Command, SuperviseArgs, TrainArgs};
use crate::failure::Exit;
use crate::output::say;
use crate::plan::resolve_for;
use crate::signals::Signals;

/// Supervises a job; returns the exit status.
pub fn run(args: &SuperviseArgs, signals: &Signals) -> Result<i32, Error> {
    if is_rank() {
        return Err(Error::config("supervise starts the launcher itself. Start it without one, and put that after --"));
    }
    signals.defer_end();
    let settings = settings(&args.command)?;
    let request = || match (signals.insisted(), signals.stop().requested()) {
        (Some(_), _) => Request::End,
        (None, true) => Request::Save,
        (None, false) => Request::GoOn,
    };
    let report = supervise(Task {
        command: args.command.clone(),
        settings: &settings,
        hosts: args.hosts.as_deref().map(read_hosts).transpose().map_err(worded)?,
        min_ranks: args.min_ranks,
        probe: args.probe.clone(),
        policy: Policy {
            max_restarts: args.max_restarts,
            window: args.window,
            backoff: Backoff { first: args.backoff, most: args.max_backoff },
            probe_every: args.probe_every,
            settle: args.settle,
        },
        meaning,
        request: &request,
        events: events(args)?,
    })
    .map_err(worded)?;
    say(&report.summary);
    let ended = report.exit_code.unwrap_or(Exit::Stopped.code());
    Ok(match report.verdict {
        Verdict::Done => 0,
        Verdict::Stopped => Exit::Stopped.code(),
        Verdict::Unsaved => signals.insisted().map_or(ended, |signal| 128 + signal),
        Verdict::BadUsage => {
            say("error: the job's command line or configuration is wrong, as it says above. Correct it");
            Exit::Usage.code()
        }
        Verdict::Repeated(failure) => {
            say(format_args!(
                "error: the job failed twice at step {} with the same message, so another restart would not help: {}",
                failure.step, failure.message
            ));
            Exit::Repeated.code()
        }
        Verdict::Exhausted => {
            say(format_args!(
                "error: the job failed again after {} restarts within --window, with exit code {ended}. Remove the cause, \
                 or allow more by --max-restarts; the same command resumes",
                args.max_restarts
            ));
            Exit::GaveUp.code()
        }
        Verdict::NoHosts => {
            say("error: too few hosts answered for the whole of --window. Bring them back; the same command resumes");
            Exit::GaveUp.code()
        }
    })
}

fn worded(error: ddpm_supervise::Error) -> Error {
    let kind = match &error {
        ddpm_supervise::Error::Scratch(_) => ErrorKind::Storage,
        ddpm_supervise::Error::Watch(_) => ErrorKind::Internal,
        _ => ErrorKind::Config,
    };
    Error::caused_by(kind, error)
}

fn meaning(code: i32) -> Ending {
    match code {
        0 => Ending::Done,
        code if code == Exit::Usage.code() => Ending::BadUsage,
        code if code == Exit::Stopped.code() => Ending::Stopped,
        _ => Ending::Failed,
    }
}

fn events(args: &SuperviseArgs) -> Result<Box<dyn Write>, Error> {
    let Some(file) = &args.events else { return Ok(Box::new(io::stdout())) };
    let opened = File::options().append(true).create(true).open(file);
    opened.map(|file| Box::new(file) as Box<dyn Write>).map_err(|error| {
        let file = file.display();
        Error::config(format!("events cannot be written to {file}: {error}. Give --events a file that can be"))
    })
}

/// The settings with which the command trains. A launcher and its options come before those of `train`.
fn settings(command: &[String]) -> Result<Settings, Error> {
    let mut refused = None;
    for (at, _) in command.iter().enumerate().filter(|(_, word)| ["train", "train-classifier"].contains(&word.as_str()))
    {
        let words = ["ddpm-dist"].into_iter().chain(command[at..].iter().map(String::as_str));
        match Cli::try_parse_from(words).map(|cli| cli.command) {
            Ok(Command::Train(args)) => return resolve(&args, Learner::Diffusion),
            Ok(Command::TrainClassifier(args)) => return resolve(&args, Learner::Classifier),
            Ok(_) => {}
            Err(error) => refused = Some(error.to_string()),
        }
    }
    Err(Error::config(match refused {
        Some(error) => error.trim_start_matches("error: ").trim_end().to_owned(),
        None => {
            "the command does not train. End it with `ddpm-dist train` or `train-classifier` and its options".into()
        }
    }))
}

fn resolve(args: &TrainArgs, learner: Learner) -> Result<Settings, Error> {
    if args.resume != ResumeFrom::Auto {
        return Err(Error::config("a job that --resume starts at a certain step loses all others. Leave it out"));
    }
    let config = args.config.config.as_str();
    if config == "-" || config.starts_with("/dev/") || config.starts_with("/proc/") {
        return Err(Error::config(
            "each start of the job reads the configuration, and a pipe can be read once. Name a file",
        ));
    }
    resolve_for(1, args, learner)
}
