//! A job of several processes under test, with a time limit and its output collected line by line.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// No job here takes longer than a few seconds; the limit leaves room for a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);

pub struct Job {
    child: Child,
    lines: Receiver<String>,
    output: Vec<String>,
    deadline: Instant,
}

impl Job {
    /// Starts `command` as the leader of a new process group.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let (sender, lines) = channel();
        forward(child.stdout.take().expect("piped"), sender.clone());
        forward(child.stderr.take().expect("piped"), sender);
        Self { child, lines, output: Vec::new(), deadline: Instant::now() + LIMIT }
    }

    /// Waits until `line` has appeared `count` times.
    #[allow(dead_code, reason = "each test program includes this file and uses a part of it")]
    pub fn wait_for(&mut self, line: &str, count: usize) {
        while self.output.iter().filter(|seen| *seen == line).count() < count {
            match self.lines.recv_timeout(self.left()) {
                Ok(line) => self.output.push(line),
                Err(_) => self.fail(&format!("{count} times {line:?} did not appear")),
            }
        }
    }

    /// Sends a signal to every process of the job's group, as Ctrl-C in a terminal does.
    #[allow(dead_code, reason = "each test program includes this file and uses a part of it")]
    pub fn signal_group(&self, name: &str) {
        let group = format!("-{}", self.child.id());
        let status = Command::new("kill").args([&format!("-{name}"), "--", &group]).status();
        assert!(status.expect("kill is installed").success());
    }

    /// Waits for the end; returns the exit code (128 + N after signal N) and all lines.
    ///
    /// Panics if the job, or a process that printed a line `pid N`, outlives the limit.
    pub fn end(mut self) -> (i32, Vec<String>) {
        // The pipes close when the last process of the job has ended.
        loop {
            match self.lines.recv_timeout(self.left()) {
                Ok(line) => self.output.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => self.fail("the job does not end"),
            }
        }
        let status = self.child.wait().expect("we started the child");
        let pids = self.output.iter().filter_map(|line| line.strip_prefix("pid "));
        for pid in pids.map(str::to_owned).collect::<Vec<_>>() {
            while runs(&pid) {
                if self.left().is_zero() {
                    self.fail(&format!("process {pid} is still running"));
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
        let code = status.code().or(status.signal().map(|signal| 128 + signal));
        (code.expect("an exit status has a code or a signal"), self.output)
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Kills the job's leader and panics. Ranks end with their mpirun.
    fn fail(&mut self, why: &str) -> ! {
        let _ = self.child.kill();
        self.output.extend(self.lines.try_iter());
        panic!("{why}; the output so far:\n{}", self.output.join("\n"))
    }
}

/// Whether the process exists and has not ended (an orphan may still be a zombie).
fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}

fn forward(pipe: impl Read + Send + 'static, lines: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                break;
            }
        }
    });
}
