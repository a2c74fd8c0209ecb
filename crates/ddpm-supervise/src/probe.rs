//! Asking hosts whether they answer: each by a command of its own, all at the same time.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// A probe that takes longer counts as no answer.
const LIMIT: Duration = Duration::from_secs(15);

/// Seconds that ssh may take to connect.
const CONNECT_S: u32 = 5;

/// How much of what a probe says last is looked at, in bytes.
const LAST_WORDS: u64 = 4096;

/// Asks hosts, and collects their answers. Probes that are still running when it is dropped are killed.
pub(crate) struct Prober {
    /// A shell's command in place of ssh, in which `{host}` stands for the host.
    command: Option<String>,
    sender: Sender<Answer>,
    answers: Receiver<Answer>,
    running: Arc<Running>,
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
        Self { command, sender, answers, running: Arc::default() }
    }

    /// Asks a host; the answer comes later.
    pub fn ask(&self, host: String) {
        let (command, sender, running) = (self.command.clone(), self.sender.clone(), Arc::clone(&self.running));
        thread::spawn(move || {
            // Looking up a name may take as long as a probe.
            let fault = question(command.as_deref(), &host).and_then(|command| fault(command, LIMIT, &running));
            // Nobody may be waiting for it any more.
            let _ = sender.send(Answer { host, fault });
        });
    }

    /// The answers that have come since.
    pub fn answers(&self) -> impl Iterator<Item = Answer> {
        self.answers.try_iter()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.running.end();
    }
}

/// The probes that are running, each as a process group of its own: signals to the program do not reach them.
#[derive(Default)]
struct Running(Mutex<Groups>);

#[derive(Default)]
struct Groups {
    leaders: Vec<Pid>,
    /// Whether no more probes are to be started.
    ended: bool,
}

impl Running {
    fn start(&self, command: &mut Command) -> io::Result<Child> {
        let mut groups = self.groups();
        if groups.ended {
            return Err(io::Error::other("its supervisor is ending"));
        }
        let child = command.process_group(0).spawn()?;
        groups.leaders.push(Pid::from_child(&child));
        Ok(child)
    }

    /// How a probe ended, if it has.
    fn poll(&self, child: &mut Child) -> io::Result<Option<ExitStatus>> {
        // Once it is waited for, another process may get its number, so it must not be killed any more.
        let mut groups = self.groups();
        let status = child.try_wait()?;
        if status.is_some() {
            groups.forget(Pid::from_child(child));
        }
        Ok(status)
    }

    fn kill(&self, child: &mut Child) {
        let leader = Pid::from_child(child);
        let _ = kill_process_group(leader, Signal::KILL);
        self.groups().forget(leader);
        let _ = child.wait();
    }

    /// Kills all probes; none is started after this.
    fn end(&self) {
        let mut groups = self.groups();
        groups.ended = true;
        for leader in groups.leaders.drain(..) {
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }

    fn groups(&self) -> MutexGuard<'_, Groups> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Groups {
    fn forget(&mut self, leader: Pid) {
        self.leaders.retain(|other| *other != leader);
    }
}

/// The command that asks a host, by the user's `command` if there is one; none if it is this machine.
fn question(command: Option<&str>, host: &str) -> Option<Command> {
    if let Some(command) = command {
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

/// Runs a probe; returns why there is no answer.
fn fault(mut command: Command, limit: Duration, running: &Running) -> Option<String> {
    let started = Instant::now();
    // Not a pipe: a probe may say more than fits into one, and leave a process behind that keeps it open.
    let said = tempfile::tempfile().and_then(|file| Ok((file.try_clone()?, file)));
    let (stderr, said) = said.map_or_else(|_| (Stdio::null(), None), |(file, said)| (file.into(), Some(said)));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
    let mut child = match running.start(&mut command) {
        Ok(child) => child,
        Err(error) => return Some(format!("{} cannot be started: {error}", command.get_program().to_string_lossy())),
    };
    let status = loop {
        match running.poll(&mut child) {
            Ok(Some(status)) => break status,
            Ok(None) if started.elapsed() < limit => thread::sleep(Duration::from_millis(10)),
            _ => {
                running.kill(&mut child);
                return Some(format!("no answer within {} s", limit.as_secs_f64()));
            }
        }
    };
    if status.success() {
        return None;
    }
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let said = said.and_then(|said| end_of(&said).ok()).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    Some(said.lines().rev().find(|line| !line.trim().is_empty()).map_or_else(|| status.to_string(), Into::into))
}

/// The last bytes of a file.
fn end_of(file: &File) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    let start = length.saturating_sub(LAST_WORDS);
    let mut bytes = vec![0; (length - start) as usize];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes)
}

/// Whether a host is this machine, by one of its names or addresses: mpirun then needs no ssh. launch/check_hosts.sh
/// knows the addresses by `hostname -I`.
fn is_this_machine(host: &str) -> bool {
    // Such as `user@host` and `[::1]`.
    let name = host.rsplit('@').next().unwrap_or(host).trim_matches(['[', ']']);
    let ours = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let ours = ours.trim();
    if !ours.is_empty() && (name == ours || ours.split('.').next() == Some(name)) {
        return true;
    }
    (name, 0).to_socket_addrs().is_ok_and(|mut addresses| addresses.any(|address| is_ours(address.ip())))
}

/// Whether an address is one of this machine's: what is sent there comes from the same address. (Binding a socket to it
/// proves nothing where `net.ipv4.ip_nonlocal_bind` is set.)
fn is_ours(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let source = || {
        let socket = UdpSocket::bind((any, 0))?;
        // Nothing is sent: this only chooses the route.
        socket.connect((address, 9))?;
        socket.local_addr()
    };
    address.is_loopback() || source().is_ok_and(|source| source.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn fault(command: Command, limit: Duration) -> Option<String> {
        super::fault(command, limit, &Running::default())
    }

    #[test]
    fn the_last_line_of_a_failed_probe_is_the_reason() {
        assert_eq!(fault(shell("echo no >&2"), LIMIT), None);
        assert_eq!(fault(shell("echo one >&2; echo two >&2; echo >&2; exit 3"), LIMIT).unwrap(), "two");
        assert_eq!(fault(shell("exit 3"), LIMIT).unwrap(), "exit status: 3");
        assert!(fault(Command::new("/nowhere/ssh"), LIMIT).unwrap().starts_with("/nowhere/ssh cannot be started"));
    }

    #[test]
    fn a_probe_may_say_much_and_leave_a_process_behind() {
        // The process ends by itself, after more time than a probe has.
        let script = "setsid sleep 20 & for i in $(seq 20000); do echo word $i >&2; done; exit 3";
        assert_eq!(fault(shell(script), LIMIT).unwrap(), "word 20000");
    }

    #[test]
    fn a_probe_that_hangs_is_no_answer() {
        let limit = Duration::from_millis(100);
        assert_eq!(fault(shell("sleep 1000 & wait"), limit).unwrap(), "no answer within 0.1 s");
    }

    #[test]
    fn probes_end_with_their_prober() {
        let running = Running::default();
        thread::scope(|scope| {
            let probe = scope.spawn(|| super::fault(shell("sleep 1000"), LIMIT, &running));
            while running.groups().leaders.is_empty() {
                thread::sleep(Duration::from_millis(1));
            }
            running.end();
            assert!(probe.join().unwrap().unwrap().starts_with("signal: 9"));
        });
        assert!(super::fault(shell("true"), LIMIT, &running).unwrap().contains("supervisor is ending"));
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
        let ours = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        for host in ["localhost", "127.0.0.1", "127.1.2.3", "[::1]", "user@localhost", ours.trim()] {
            assert!(question(None, host).is_none(), "{host}");
        }
        // An address that documentation may use.
        let ssh = question(None, "192.0.2.1").unwrap();
        let words: Vec<_> = ssh.get_args().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(words, ["-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "192.0.2.1", "true"]);
    }
}
