//! Asking hosts whether they answer: each by a command of its own, all at the same time.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// A probe that takes longer counts as no answer.
const LIMIT: Duration = Duration::from_secs(15);

/// Seconds that ssh may take to connect.
const CONNECT_S: u32 = 5;

/// Asks hosts, and collects their answers.
pub(crate) struct Prober {
    /// A shell's command in place of ssh, in which `{host}` stands for the host.
    command: Option<String>,
    sender: Sender<Answer>,
    answers: Receiver<Answer>,
}

/// Whether a host answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub host: String,
    /// Why it did not.
    pub fault: Option<String>,
}

impl Prober {
    /// Asks by `command`, else by ssh, and this machine not at all.
    pub fn new(command: Option<String>) -> Self {
        let (sender, answers) = channel();
        Self { command, sender, answers }
    }

    /// Asks a host; the answer comes later.
    pub fn ask(&self, host: String) {
        let (command, sender) = (self.command(&host), self.sender.clone());
        thread::spawn(move || {
            let fault = command.and_then(|command| fault(command, LIMIT));
            // Nobody may be waiting for it any more.
            let _ = sender.send(Answer { host, fault });
        });
    }

    /// The answers that have come since.
    pub fn answers(&self) -> impl Iterator<Item = Answer> {
        self.answers.try_iter()
    }

    /// The command that asks a host; none if it is this machine.
    fn command(&self, host: &str) -> Option<Command> {
        if let Some(command) = &self.command {
            let mut shell = Command::new("sh");
            shell.args(["-c", &command.replace("{host}", host)]);
            return Some(shell);
        }
        if is_this_machine(host) {
            return None;
        }
        let mut ssh = Command::new("ssh");
        ssh.args(["-o", "BatchMode=yes", "-o", &format!("ConnectTimeout={CONNECT_S}"), host, "true"]);
        Some(ssh)
    }
}

/// Runs a probe; returns why there is no answer.
fn fault(mut command: Command, limit: Duration) -> Option<String> {
    let started = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Some(format!("{} cannot be started: {error}", command.get_program().to_string_lossy())),
    };
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if started.elapsed() < limit => thread::sleep(Duration::from_millis(10)),
            _ => {
                let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
                let _ = child.wait();
                return Some(format!("no answer within {} s", limit.as_secs_f64()));
            }
        }
    };
    if status.success() {
        return None;
    }
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    // A line or two, which fit into the pipe.
    let mut said = Vec::new();
    let _ = child.stderr.take().map(|pipe| pipe.take(4096).read_to_end(&mut said));
    let said = String::from_utf8_lossy(&said);
    Some(said.lines().rev().find(|line| !line.trim().is_empty()).map_or_else(|| status.to_string(), Into::into))
}

/// Whether a host is this machine, which mpirun reaches without ssh.
fn is_this_machine(host: &str) -> bool {
    let ours = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let ours = ours.trim();
    let short = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    ["localhost", "127.0.0.1", "::1", ours].contains(&host) || (!ours.is_empty() && host == short(ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn the_last_line_of_a_failed_probe_is_the_reason() {
        assert_eq!(fault(shell("echo no >&2"), LIMIT), None);
        assert_eq!(fault(shell("echo one >&2; echo two >&2; echo >&2; exit 3"), LIMIT).unwrap(), "two");
        assert_eq!(fault(shell("exit 3"), LIMIT).unwrap(), "exit status: 3");
        assert!(fault(Command::new("/nowhere/ssh"), LIMIT).unwrap().starts_with("/nowhere/ssh cannot be started"));
    }

    #[test]
    fn a_probe_that_hangs_is_no_answer() {
        let limit = Duration::from_millis(100);
        assert_eq!(fault(shell("sleep 1000 & wait"), limit).unwrap(), "no answer within 0.1 s");
    }

    #[test]
    fn hosts_are_asked_by_the_command() {
        let prober = Prober::new(Some("test {host} = up".into()));
        for host in ["up", "down"] {
            prober.ask(host.into());
        }
        let mut answers: Vec<Answer> = prober.answers.iter().take(2).collect();
        answers.sort_unstable_by(|a, b| a.host.cmp(&b.host));
        assert_eq!(answers[0].fault.as_deref(), Some("exit status: 1"));
        assert_eq!((answers[1].host.as_str(), answers[1].fault.as_deref()), ("up", None));
    }

    #[test]
    fn this_machine_needs_no_ssh() {
        assert!(Prober::new(None).command("localhost").is_none());
        let ssh = Prober::new(None).command("node1").unwrap();
        let words: Vec<_> = ssh.get_args().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(words, ["-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "node1", "true"]);
    }
}
