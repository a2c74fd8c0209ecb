//! Requests to stop, handled from the first instruction of the program to its last.
//!
//! Ctrl-C, SIGTERM, a closed terminal (SIGHUP) and SIGUSR1 ask the run to save and end; so does emptying the file that
//! `DDPM_STOP_FILE` names, as `launch/local.sh` does. A second Ctrl-C or SIGTERM ends the process at once.

use std::fs::{self, File};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals as Pending;
use signal_hook::low_level;

use ddpm_model::Error;
use ddpm_train::StopRequest;

use crate::failure::Exit;

/// The environment variable that names the stop file; emptying the file is a request to stop.
const STOP_FILE: &str = "DDPM_STOP_FILE";
/// Polling interval.
const PAUSE: Duration = Duration::from_millis(50);
/// A second SIGTERM that comes sooner is a repeat of the first: `timeout` sends it to the process, then to its group.
const APART: Duration = Duration::from_secs(2);

/// The requests that this process receives.
#[derive(Clone, Debug, Default)]
pub struct Signals(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// The flag that the trainer polls.
    stop: StopRequest,
    /// The signal that asked first; 0 while none has.
    asked: AtomicI32,
    /// Whether there is nothing to save.
    at_once: AtomicBool,
    /// Whether the command itself ends the program after a second Ctrl-C or SIGTERM.
    deferred: AtomicBool,
    /// Whether that came.
    insisted: AtomicBool,
}

impl Signals {
    /// Starts to listen. The program does this first: a signal before this ends it, and one during startup is
    /// remembered.
    pub fn listen() -> Result<Self, Error> {
        let unable = |error| Error::internal(format!("cannot listen for signals: {error}"));
        let mut listened_to = vec![SIGINT, SIGTERM, SIGUSR1];
        if !ignored(SIGHUP) {
            listened_to.push(SIGHUP);
        }
        let signals = Pending::new(listened_to).map_err(unable)?;
        let this = Self::default();
        let state = Arc::clone(&this.0);
        let file = stop_file()?;
        thread::Builder::new().name("requests".into()).spawn(move || state.hear(signals, file)).map_err(unable)?;
        Ok(this)
    }

    /// For commands that have nothing to save: from now on a request ends the process, even one received earlier.
    pub fn end_at_once(&self) {
        self.0.at_once.store(true, Ordering::Relaxed);
    }

    /// For a command that has a job to end: from now on [`Signals::insisted`] reports a second Ctrl-C or SIGTERM.
    pub fn defer_end(&self) {
        self.0.deferred.store(true, Ordering::Relaxed);
    }

    /// Whether a second Ctrl-C or SIGTERM has come.
    pub fn insisted(&self) -> bool {
        self.0.insisted.load(Ordering::Relaxed)
    }

    /// The request to stop, which a trainer honours.
    pub fn stop(&self) -> &StopRequest {
        &self.0.stop
    }
}

impl State {
    fn hear(&self, mut signals: Pending, mut file: Option<File>) {
        let mut insisted: Option<Instant> = None;
        loop {
            for signal in signals.pending() {
                self.ask(signal);
                if [SIGINT, SIGTERM].contains(&signal) && insisted.get_or_insert_with(Instant::now).elapsed() >= APART {
                    if !self.deferred.load(Ordering::Relaxed) {
                        low_level::exit(128 + signal);
                    }
                    self.insisted.store(true, Ordering::Relaxed);
                }
            }
            if file.take_if(|file| is_empty(file)).is_some() {
                self.ask(SIGUSR1);
            }
            if self.at_once.load(Ordering::Relaxed) {
                match self.asked.load(Ordering::Relaxed) {
                    0 => {}
                    SIGINT => low_level::exit(128 + SIGINT),
                    _ => low_level::exit(Exit::Stopped.code()),
                }
            }
            thread::sleep(PAUSE);
        }
    }

    fn ask(&self, signal: i32) {
        self.stop.request();
        // The first of several requests counts; it decides the exit code.
        let _ = self.asked.compare_exchange(0, signal, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// The file is kept open, so that it is still watched if its folder is cleaned up.
fn stop_file() -> Result<Option<File>, Error> {
    let Some(path) = std::env::var_os(STOP_FILE) else { return Ok(None) };
    File::open(&path).map(Some).map_err(|error| {
        let path = path.display();
        Error::config(format!(
            "{STOP_FILE} is {path}, which cannot be opened: {error}. Unset it, or name a file that is not empty; \
             emptying it stops the run."
        ))
    })
}

/// A file whose metadata cannot be read is not a request.
fn is_empty(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.len() == 0)
}

/// Whether the process was started with this signal ignored, as `nohup` does with SIGHUP; then it stays ignored.
fn ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
