//! The running job: its process, its output, and the signals that end it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::mem;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::account::Account;

/// The environment variable that names the file by which ranks are asked to stop; emptying it is the request.
const STOP_FILE: &str = "DDPM_STOP_FILE";

/// After this time a job that hides its log counts as started: SIGUSR1 would kill ranks that do not listen yet.
const STARTED: Duration = Duration::from_secs(30);

/// How long after SIGTERM a job that is to end at once gets the next signal. `launch/local.sh` and the program ignore a
/// second SIGTERM within two seconds.
const INSISTING: [(Duration, End); 3] =
    [(Duration::ZERO, End::Terminate), (Duration::from_secs(3), End::Terminate), (Duration::from_secs(10), End::Kill)];

/// How long output is waited for once the job has ended: a process that it left behind may hold the pipe.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The exit code reported if that of the job is not available.
const UNWATCHED: i32 = 1;

#[derive(Clone, Copy)]
enum End {
    Terminate,
    Kill,
}

/// The file by which the ranks on this machine are asked to stop. While open, it can be emptied even after its folder
/// was cleaned up.
pub(crate) struct StopFile {
    path: PathBuf,
    file: File,
}

impl StopFile {
    /// Creates the file at `path`; nothing is requested yet.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn create(path: PathBuf) -> io::Result<Self> {
        let mut file = File::create(&path)?;
        file.write_all(b"run")?;
        Ok(Self { path, file })
    }

    fn empty(&self) -> io::Result<()> {
        self.file.set_len(0)
    }
}

/// A running job. Dropped before its end, it is terminated.
pub(crate) struct Job {
    child: Child,
    started: Instant,
    stop_file: StopFile,
    account: Arc<Mutex<Account>>,
    relays: Vec<JoinHandle<()>>,
    save: Save,
    /// After this time it counts as started even if its log does not say so.
    quiet: Duration,
    /// Since when it is to end at once, and how many signals it got for that.
    ending: Option<(Instant, usize)>,
    exited: bool,
}

/// How far the request to save and end has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Save {
    NotAsked,
    /// Through the file; not yet by a signal.
    Asked,
    /// By a signal too, before its log said that all ranks listen: not all may have.
    SignalledEarly,
    Signalled,
}

impl Job {
    /// Starts `command`, whose output goes to our stderr.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(command: &[String], stop_file: StopFile) -> io::Result<Self> {
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut child = Command::new(program)
            .args(arguments)
            .env(STOP_FILE, &stop_file.path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // So that the terminal's Ctrl-C reaches the supervisor alone.
            .process_group(0)
            .spawn()?;
        let account = Arc::<Mutex<Account>>::default();
        let pipes = [
            child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
            child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
        ];
        let relays = pipes.into_iter().flatten().map(|pipe| {
            let account = Arc::clone(&account);
            thread::spawn(move || relay(pipe, &account))
        });
        Ok(Self {
            relays: relays.collect(),
            child,
            started: Instant::now(),
            stop_file,
            account,
            save: Save::NotAsked,
            quiet: STARTED,
            ending: None,
            exited: false,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How long it has been running.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Asks it to save and end. Ranks on this machine see the stop file at any time; the signal, which the launcher
    /// passes on to all of them, follows once they listen.
    ///
    /// # Errors
    /// The stop file cannot be emptied; the signal follows nevertheless.
    pub fn ask_to_save(&mut self) -> io::Result<()> {
        if self.save == Save::NotAsked {
            self.save = Save::Asked;
        }
        self.stop_file.empty()
    }

    /// Ends it without saving.
    pub fn end_at_once(&mut self) {
        self.ending.get_or_insert_with(|| (Instant::now(), 0));
    }

    /// Sends the signals that are due; returns the exit code if the job has ended, 128 + n after signal n.
    pub fn poll(&mut self) -> Option<i32> {
        self.send_due_signals();
        let code = match self.child.try_wait() {
            Ok(None) => return None,
            Ok(Some(status)) => status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()),
            Err(error) => {
                tracing::warn!("the job cannot be watched ({error}), so it is ended");
                UNWATCHED
            }
        };
        self.exited = true;
        // What the command left behind must not train on beside its successor.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        Some(code)
    }

    /// What the job has said, once it has ended.
    pub fn into_account(self) -> Account {
        let ended = Instant::now();
        while self.relays.iter().any(|relay| !relay.is_finished()) && ended.elapsed() < LAST_WORDS {
            thread::sleep(Duration::from_millis(10));
        }
        mem::take(&mut *self.account.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn send_due_signals(&mut self) {
        let pid = Pid::from_child(&self.child);
        // A process that has just ended cannot be signalled, and need not be.
        let next = match self.save {
            Save::Asked | Save::SignalledEarly if self.has_begun() => Save::Signalled,
            Save::Asked if self.started.elapsed() >= self.quiet => Save::SignalledEarly,
            unchanged => unchanged,
        };
        if mem::replace(&mut self.save, next) != next {
            let _ = kill_process(pid, Signal::USR1);
        }
        if let Some((since, sent)) = &mut self.ending
            && let Some((after, end)) = INSISTING.get(*sent)
            && since.elapsed() >= *after
        {
            *sent += 1;
            let _ = match end {
                End::Terminate => kill_process(pid, Signal::TERM),
                End::Kill => kill_process_group(pid, Signal::KILL),
            };
        }
    }

    fn has_begun(&self) -> bool {
        self.account.lock().unwrap_or_else(PoisonError::into_inner).has_begun()
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.exited {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        }
    }
}

/// Passes the job's output on to our stderr, line by line, and takes account of it.
fn relay(pipe: impl Read, account: &Mutex<Account>) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    while pipe.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        // Our own reader may be gone; the job must not suffer from that.
        let _ = io::stderr().write_all(&line);
        account.lock().unwrap_or_else(PoisonError::into_inner).hear(&String::from_utf8_lossy(&line));
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ending::Ending;

    fn run(script: &str, act: impl FnOnce(&mut Job)) -> (i32, Account) {
        let folder = tempfile::tempdir().unwrap();
        let command = ["bash", "-c", script].map(String::from);
        let mut job = Job::start(&command, StopFile::create(folder.path().join("stop")).unwrap()).unwrap();
        act(&mut job);
        let code = loop {
            if let Some(code) = job.poll() {
                break code;
            }
            assert!(job.age() < Duration::from_secs(60), "still running");
            thread::sleep(Duration::from_millis(5));
        };
        (code, job.into_account())
    }

    fn wait_for_a_step(job: &Job) {
        while job.account.lock().unwrap().reached().is_none() {
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn both_streams_are_read_to_their_end() {
        let (code, account) = run("echo 'step 3/9  loss 1'; echo 'error: broken' >&2; exit 4", |_| {});
        assert_eq!((code, account.reached()), (4, Some(3)));
        let failure = account.failure(Ending::Failed, code, 3).unwrap();
        assert_eq!(failure.message, "broken");
        assert_eq!(run("kill -SEGV $$", |_| {}).0, 128 + 11);
    }

    #[test]
    fn a_request_comes_through_the_file_at_once_and_as_a_signal_once_the_job_listens() {
        let ask = |job: &mut Job| job.ask_to_save().unwrap();
        // The signal would end this one with code 138.
        assert_eq!(run("while [ -s \"$DDPM_STOP_FILE\" ]; do sleep 0.01; done; exit 75", ask).0, 75);
        let listening = "trap 'exit 75' USR1; echo 'starting at step 0 in x'; while :; do sleep 0.01; done";
        assert_eq!(run(listening, ask).0, 75);
    }

    #[test]
    fn a_signal_that_ranks_may_have_missed_is_repeated_once_they_listen() {
        let script = "n=0; trap 'n=$((n+1))' USR1; echo 'step 1/9  loss 1'; while [ $n = 0 ]; do sleep 0.01; done; \
                      echo 'starting at step 0 in x'; while [ $n = 1 ]; do sleep 0.01; done; exit 75";
        let ask = |job: &mut Job| {
            wait_for_a_step(job);
            job.quiet = Duration::ZERO;
            job.ask_to_save().unwrap();
        };
        assert_eq!(run(script, ask).0, 75);
    }

    #[test]
    fn a_request_reaches_ranks_although_the_folder_of_its_file_was_cleaned() {
        let script = "exec 3<\"$DDPM_STOP_FILE\"; rm -r \"${DDPM_STOP_FILE%/*}\"; echo 'step 1/9  loss 1'; \
                      while [ -s /dev/fd/3 ]; do sleep 0.01; done; exit 75";
        let ask = |job: &mut Job| {
            wait_for_a_step(job);
            job.ask_to_save().unwrap();
        };
        assert_eq!(run(script, ask).0, 75);
    }

    #[test]
    fn a_job_that_is_to_end_at_once_is_terminated() {
        assert_eq!(run("trap 'exit 143' TERM; while :; do sleep 0.01; done", Job::end_at_once).0, 143);
    }

    #[test]
    fn what_a_job_leaves_behind_is_ended() {
        let (code, account) = run("sleep 1000 & echo \"step $!/1\"; exit 0", |_| {});
        assert_eq!(code, 0);
        // One that has ended, but that nobody has waited for, has no command line.
        let command = format!("/proc/{}/cmdline", account.reached().unwrap());
        while std::fs::read(&command).is_ok_and(|words| !words.is_empty()) {
            thread::sleep(Duration::from_millis(5));
        }
    }
}
