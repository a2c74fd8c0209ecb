//! Carrying out the decisions: the loop that starts the job, watches it and its hosts, and reports what happens.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind::{NotFound, PermissionDenied};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use ddpm_config::Settings;
use tempfile::TempDir;

use crate::account::{Failure, Origin};
use crate::command::Template;
use crate::decide::{Action, Decider, Exit, Pause, Policy, Reason};
use crate::ending::Ending;
use crate::error::Error;
use crate::events::{Event, Events, Summary, rounded};
use crate::fleet::{Change, Fleet, Layout};
use crate::hosts::{hostfile, read_hosts};
use crate::job::{Job, StopFile};
use crate::probe::{Answer, Prober};
use crate::tally::Tally;
use crate::verdict::Verdict;

/// How often the job, the hosts and the user are looked at.
const TICK: Duration = Duration::from_millis(50);

/// The exit code of a job whose command cannot be started: a shell's.
const NOT_STARTED: i32 = 127;

/// What is to be supervised.
pub struct Task<'a> {
    /// The command that starts the job, which resumes by itself. With `hosts`, `{ranks}` in it stands for the number
    /// of ranks and `{hosts}` for a hostfile.
    pub command: Vec<String>,
    /// The settings with which it trains.
    pub settings: &'a Settings,
    /// A hostfile of the hosts to choose from, if there is a choice.
    pub hosts: Option<PathBuf>,
    /// The smallest number of ranks to run on.
    pub min_ranks: usize,
    /// A shell's command that succeeds if `{host}` answers; else ssh is tried.
    pub probe: Option<String>,
    /// The limits of restarting.
    pub policy: Policy,
    /// What the user wants by now.
    pub request: &'a dyn Fn() -> Request,
    /// The file to which events are appended, one line of JSON each; else they go to stdout.
    pub events: Option<PathBuf>,
}

/// What the user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// That the job goes on.
    GoOn,
    /// That it saves and ends.
    Save,
    /// That it ends without saving.
    End,
}

/// How supervision ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// With which code to exit.
    pub exit_code: i32,
    /// The message for the user: how it ended, and what was trained and lost on the way.
    pub message: String,
}

/// Keeps a job running until it is done, it cannot be, or the user asks it to stop.
///
/// # Errors
/// The hosts do not fit the configuration or the command, or there is no place for events and temporary files.
pub fn supervise(task: Task<'_>) -> Result<Report, Error> {
    let begun = Instant::now();
    let template = Template::new(task.command, task.hosts.is_some())?;
    let settings = task.settings;
    let fits = |ranks| settings.check_world(ranks).is_ok();
    let fleet = |file: PathBuf| Fleet::new(read_hosts(&file)?, task.min_ranks, settings.train.global_batch, fits);
    let tally = Tally::begin(Path::new(&settings.run.dir).join("metrics.jsonl"));
    let driver = Driver {
        template,
        decider: Decider::new(task.policy, task.hosts.map(fleet).transpose()?, tally.step().unwrap_or(0)),
        prober: Prober::new(task.probe),
        events: Events::new(open_events(task.events)?, begun),
        scratch: Scratch::new().map_err(Error::Scratch)?,
        tally,
        job: None,
        begun,
        starts: 0,
        exit_code: None,
        down_since: Duration::ZERO,
        waited: Duration::ZERO,
        pause: Pause::Job,
    };
    Ok(driver.run(task.request))
}

struct Driver {
    template: Template,
    decider: Decider,
    prober: Prober,
    events: Events<'static>,
    scratch: Scratch,
    tally: Tally,
    job: Option<Job>,
    begun: Instant,
    starts: usize,
    exit_code: Option<i32>,
    down_since: Duration,
    /// Without a job, except since `down_since`.
    waited: Duration,
    /// The last one, so that each is reported once.
    pause: Pause,
}

impl Driver {
    fn run(mut self, request: &dyn Fn() -> Request) -> Report {
        loop {
            let request = request();
            if request != Request::GoOn {
                self.decider.ask();
            }
            if request == Request::End
                && let Some(job) = &mut self.job
            {
                job.end_at_once();
            }
            let answers: Vec<Answer> = self.prober.answers().collect();
            answers.into_iter().for_each(|answer| self.take_answer(&answer));
            if let Some(job) = &mut self.job
                && let Some(code) = job.poll()
            {
                self.take_exit(code);
            }
            match self.decider.next(self.begun.elapsed()) {
                Action::Probe(hosts) => hosts.into_iter().for_each(|host| self.prober.ask(host)),
                Action::Start(layout) => self.start(layout),
                Action::Stop(reason) => self.stop(reason),
                Action::Wait(pause) => {
                    self.report_pause(pause);
                    thread::sleep(TICK);
                }
                Action::End(verdict) => return self.end(verdict),
            }
        }
    }

    fn take_answer(&mut self, answer: &Answer) {
        let Answer { host, fault } = answer;
        match self.decider.answered(self.begun.elapsed(), host, fault.is_none()) {
            Some(Change::Dropped) => {
                let reason = fault.as_deref().unwrap_or_default();
                tracing::warn!("{host} does not answer ({reason}); going on without it");
                self.events.emit(&Event::HostDropped { host, reason });
            }
            Some(Change::Returned) => {
                tracing::info!("{host} answers again");
                self.events.emit(&Event::HostReturned { host });
            }
            None => {}
        }
    }

    fn start(&mut self, layout: Option<Layout>) {
        let now = self.begun.elapsed();
        self.waited += now.saturating_sub(self.down_since);
        self.starts += 1;
        let job = match self.start_job(layout.as_ref()) {
            Ok(job) => job,
            Err(error) => return self.take_failed_start(&error),
        };
        let (ranks, hosts) = layout.map_or((None, Vec::new()), |layout| (Some(layout.ranks), layout.hosts));
        let shares: Vec<String> = hosts.iter().map(|host| format!(", {} ranks on {}", host.slots, host.name)).collect();
        tracing::info!("start {} of the job{}", self.starts, shares.concat());
        self.events.emit(&Event::Started { attempt: self.starts, ranks, hosts: &hosts, pid: job.pid() });
        self.job = Some(job);
    }

    fn start_job(&mut self, layout: Option<&Layout>) -> Result<Job, Error> {
        let stop_file = self.scratch.file("stop").and_then(StopFile::create).map_err(Error::Scratch)?;
        let hosts_file = self.scratch.file("hosts").map_err(Error::Scratch)?;
        if let Some(layout) = layout {
            fs::write(&hosts_file, hostfile(&layout.hosts)).map_err(Error::Scratch)?;
        }
        let command = self.template.filled(layout.map(|layout| (layout.ranks, hosts_file.as_path())));
        Job::start(&command, stop_file)
            .map_err(|source| Error::Start { program: command.first().cloned().unwrap_or_default(), source })
    }

    /// A machine may have too little memory, room or processes for a while; a command that does not exist is wrong.
    fn take_failed_start(&mut self, error: &Error) {
        let wrong =
            matches!(error, Error::Start { source, .. } if [NotFound, PermissionDenied].contains(&source.kind()));
        let ending = if wrong && self.starts == 1 { Ending::BadUsage } else { Ending::Failed };
        let (step, message) = (self.tally.step().unwrap_or(0), error.to_string());
        let failure = Failure { step, message, origin: Origin::Environment };
        self.take_ending(Exit { ending, reached: step, failure: Some(failure) }, NOT_STARTED, Duration::ZERO);
    }

    fn stop(&mut self, reason: Reason) {
        let Some(job) = &mut self.job else { return };
        match reason {
            Reason::Asked => tracing::info!("asked the job to save and stop"),
            Reason::Grow => tracing::info!("asked the job to save and stop, to go on with more ranks"),
        }
        if let Err(error) = job.ask_to_save() {
            tracing::warn!("the stop file cannot be emptied ({error}); the job gets a signal instead once it trains");
        }
        self.events.emit(&Event::Stopping { reason });
    }

    fn take_exit(&mut self, code: i32) {
        let Some(job) = self.job.take() else { return };
        let age = job.age();
        let account = job.into_account();
        let ending = Ending::of(code);
        self.tally.update();
        let reached = account.reached().max(self.tally.step()).unwrap_or(0);
        // Before training begins, the file still shows the steps of the start before.
        let failure = account.failure(ending, code, account.reached().unwrap_or(reached));
        self.take_ending(Exit { ending, reached, failure }, code, age);
    }

    /// Reports how the job ended that ran for this time, and leaves the next decision to the decider.
    fn take_ending(&mut self, exit: Exit, code: i32, age: Duration) {
        let Exit { ending, reached, failure } = &exit;
        let (failed_step, message) = failure.as_ref().map(|failure| (failure.step, failure.message.as_str())).unzip();
        match (ending, message) {
            (Ending::Done, _) => {}
            (Ending::Stopped, _) => tracing::info!("the job has saved step {reached} and stopped"),
            (_, Some(message)) => tracing::warn!("the job failed with exit code {code}: {message}"),
            (_, None) => tracing::warn!("the job failed with exit code {code}"),
        }
        self.events.emit(&Event::Exited {
            attempt: self.starts,
            exit_code: code,
            ending: *ending,
            step: *reached,
            failed_step,
            message,
            seconds: rounded(age),
        });
        self.exit_code = Some(code);
        self.down_since = self.begun.elapsed();
        self.decider.exited(self.down_since, exit, random());
    }

    fn report_pause(&mut self, pause: Pause) {
        let now = self.begun.elapsed();
        let (reason, until) = match pause {
            // The answers come within seconds, and may come during another pause.
            Pause::Probes => return,
            _ if pause == self.pause => return,
            Pause::Job => {
                self.pause = pause;
                return;
            }
            Pause::Backoff(until) => ("backoff", until),
            Pause::Hosts(until) => ("hosts", until),
        };
        self.pause = pause;
        let left = until.saturating_sub(now);
        match pause {
            Pause::Hosts(_) => tracing::warn!(
                "the hosts that answer have no room for the job; waiting for others, for {:.0} s at most",
                left.as_secs_f64()
            ),
            _ => tracing::info!("the next start is in {:.1} s", left.as_secs_f64()),
        }
        self.events.emit(&Event::Waiting { reason, seconds: rounded(left) });
    }

    fn end(mut self, verdict: Verdict) -> Report {
        let now = self.begun.elapsed();
        self.waited += now.saturating_sub(self.down_since);
        let (kept, lost) = (self.tally.kept(), self.tally.lost());
        let (wall, waited) = (now.as_secs_f64(), self.waited.as_secs_f64());
        let to_ms = |seconds: f64| (seconds * 1e3).round() / 1e3;
        let summary = Summary {
            outcome: verdict.name(),
            exit_code: self.exit_code,
            step: self.tally.step().unwrap_or(0),
            starts: self.starts,
            restarts: self.starts.saturating_sub(1),
            wall_s: to_ms(wall),
            trained_s: to_ms(kept.seconds),
            trained_steps: kept.steps,
            lost_s: to_ms(lost.seconds),
            lost_steps: lost.steps,
            waiting_s: to_ms(waited),
            other_s: to_ms((wall - waited - kept.seconds - lost.seconds).max(0.0)),
            goodput: to_ms(if wall > 0.0 { kept.seconds / wall } else { 0.0 }),
        };
        let message = format!(
            "{}\n{:.0} s: {:.0} s trained {} steps, {:.0} s were lost with {} steps that were computed again, {:.0} s \
             were spent waiting; {} restarts; goodput {:.1}%",
            verdict.sentence(self.exit_code),
            wall,
            kept.seconds,
            kept.steps,
            lost.seconds,
            lost.steps,
            waited,
            summary.restarts,
            summary.goodput * 100.0
        );
        self.events.emit(&Event::Summary(summary));
        Report { exit_code: verdict.exit_code(self.exit_code), message }
    }
}

/// Where events go.
fn open_events(file: Option<PathBuf>) -> Result<Box<dyn Write>, Error> {
    let Some(file) = file else { return Ok(Box::new(io::stdout())) };
    match File::options().append(true).create(true).open(&file) {
        Ok(opened) => Ok(Box::new(opened)),
        Err(source) => Err(Error::Events { file, source }),
    }
}

/// The folder of the files that the job is given.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> io::Result<Self> {
        tempfile::Builder::new().prefix("ddpm-supervise-").tempdir().map(Self)
    }

    /// The path of a file in the folder, which is created again if the system has cleaned it up.
    fn file(&mut self, name: &str) -> io::Result<PathBuf> {
        if !self.0.path().is_dir() {
            *self = Self::new()?;
        }
        Ok(self.0.path().join(name))
    }
}

/// A random number from 0 to 1: the standard library's hash maps are seeded at random.
fn random() -> f64 {
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_was_cleaned_up_is_made_anew() {
        let mut scratch = Scratch::new().unwrap();
        let first = scratch.file("hosts").unwrap();
        fs::remove_dir_all(first.parent().unwrap()).unwrap();
        fs::write(scratch.file("hosts").unwrap(), "").unwrap();
    }
}
