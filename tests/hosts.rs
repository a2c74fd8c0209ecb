//! launch/hosts.sh on hosts in network namespaces of this machine: a run equals that of launch/local.sh, a lost host ends
//! it and the others resume it, and whatever is wrong with a host is said before anything starts.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::common::kill::{ranks_below, tree};
use crate::common::{
    Outcome, buffers, check_same_bits, finish, last_logged, newest_manifest, root, run, signal, start, succeed, train,
    verified, wait_for, write_script,
};

/// A login node, which has the launcher, and hosts `h1`, `h2`, ..., which end with it.
struct Network {
    up: Child,
    dir: TempDir,
}

impl Network {
    fn start(hosts: usize) -> Self {
        let dir = TempDir::new().unwrap();
        let mut command = Command::new(script());
        command.arg("up").arg(dir.path()).arg(hosts.to_string());
        let mut up = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(up.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "no hosts: these tests need root, and what scripts/setup.sh --tests installs");
        Self { up, dir }
    }

    /// A command on a node.
    fn on(&self, node: &str, command: &[&str]) -> Command {
        let mut on = Command::new(script());
        on.current_dir(root()).arg("on").arg(self.dir.path()).arg(node).args(command);
        on
    }

    /// Something that happens to a host.
    fn event(&self, host: &str, command: &[&str]) {
        succeed(&mut self.on(host, command));
    }

    /// Lets a host answer again whose processes were killed.
    fn revive(&self, host: &str) {
        self.event(host, &["/usr/sbin/sshd", "-f", self.dir.path().join("sshd_config").to_str().unwrap()]);
    }

    fn host_file(&self, text: &str) -> PathBuf {
        let path = self.dir.path().join("hosts.txt");
        fs::write(&path, text).unwrap();
        path
    }

    /// `train`, on hosts.
    fn train(&self, hosts: &str, dir: &Path, steps: u64, more: &[&str]) -> Command {
        let local = train(1, dir, steps, &[]);
        let mut command = self.on("login", &["launch/hosts.sh"]);
        // The first argument of the other launcher is its number of ranks.
        command.arg(self.host_file(hosts)).args(local.get_args().skip(1)).args(more);
        for (name, value) in local.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        // Each node has another folder there, as hosts do.
        command.env("TMPDIR", self.dir.path().join("local"));
        command
    }

    /// Waits until no rank is left on any host.
    fn wait_for_silence(&self) {
        wait_for(|| ranks_below(self.up.id()).is_empty());
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.up.stdin.take());
        let _ = self.up.wait();
    }
}

fn script() -> PathBuf {
    root().join("scripts/netns_hosts.sh")
}

const QUICK: &[&str] = &[
    "--set",
    "train.global_batch=12",
    "--set",
    "checkpoint.every=2",
    "--set",
    "monitor.sample_every=0",
    "--set",
    "monitor.tensorboard=false",
];

/// Asserts that a run ended with this code and one line of the launcher, which contains all of `parts`.
fn check_line(outcome: &Outcome, code: i32, parts: &[&str]) {
    assert_eq!(outcome.code, code, "{}", outcome.stderr);
    let lines: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("hosts.sh: ")).collect();
    assert_eq!(lines.len(), 1, "{}", outcome.stderr);
    for part in parts {
        assert!(lines[0].contains(part), "'{part}' is not in: {}", outcome.stderr);
    }
    assert!(!outcome.stderr.contains("-----"), "mpirun's own messages: {}", outcome.stderr);
}

#[test]
#[ignore = "long; docs/launching.md says how to run it"]
fn a_lost_host_ends_the_run_and_the_others_resume_it() {
    let network = Network::start(3);
    let dir = TempDir::new().unwrap();
    let all = "h1 slots=1 # with rank 0\n\nh2 slots=2\nh3 slots=1\n";
    let mut command = network.train(all, dir.path(), 1_000_000, QUICK);
    // All processes of a host die, with its connections.
    let child = start(&mut command);
    wait_for(|| newest_manifest(&dir.path().join("checkpoints")) >= 4);
    network.event("h2", &["bash", "-c", "kill -KILL -1"]);
    check_line(&finish(child), 1, &["lost h2, with ranks 1 and 2: "]);
    network.wait_for_silence();
    check_line(&run(&mut command), 1, &["h2 does not answer: ", "take h2 out of "]);

    // The host's connections just go silent; mpirun gives it up within comm.timeout_s.
    let saved = verified(&dir.path().join("checkpoints"))[0];
    let timeout = ["--set", "comm.timeout_s=5"];
    let child =
        start(&mut network.train("h1 slots=2\nh3 slots=1\n", dir.path(), 1_000_000, &[QUICK, &timeout].concat()));
    wait_for(|| newest_manifest(&dir.path().join("checkpoints")) >= saved + 4);
    network.event("h3", &["ip", "link", "set", "eth0", "down"]);
    check_line(&finish(child), 1, &["lost h3, with rank 2: "]);
    network.wait_for_silence();

    network.revive("h2");
    let saved = verified(&dir.path().join("checkpoints"))[0];
    let outcome = succeed(&mut network.train("h1 slots=1\nh2 slots=2", dir.path(), saved + 2, QUICK));
    assert!(outcome.stderr.contains(&format!("resuming from step {saved}")), "{}", outcome.stderr);
    assert_eq!(verified(&dir.path().join("checkpoints"))[0], saved + 2);
}

#[test]
fn hosts_compute_the_same_bits_as_one_machine_and_save_on_request() {
    let network = Network::start(2);
    let (apart, together) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let hosts = "h1 slots=1\nh2 slots=2\n";
    let child = start(&mut network.train(hosts, apart.path(), 1_000_000, QUICK));
    wait_for(|| last_logged(apart.path()) >= 3);
    // The launcher, below the script and nsenter; the ranks' stop files are on other hosts.
    assert!(signal("TERM", tree(child.id())[2]));
    let outcome = finish(child);
    assert_eq!(outcome.code, 75, "{}", outcome.stderr);
    let reached = last_logged(apart.path());
    assert_eq!(verified(&apart.path().join("checkpoints"))[0], reached);

    let options = [QUICK, &["--set", "checkpoint.keep_last=100"]].concat();
    succeed(&mut network.train(hosts, apart.path(), reached + 2, &options));
    succeed(&mut train(3, together.path(), reached + 2, &options));
    check_same_bits("hosts", &buffers(apart.path(), reached + 2), &buffers(together.path(), reached + 2));
}

#[test]
fn what_is_wrong_with_hosts_is_said_before_anything_starts() {
    let network = Network::start(2);
    let dir = TempDir::new().unwrap();
    let both = "h1 slots=1\nh2 slots=1\n";
    let refused = |hosts: &str, parts: &[&str]| {
        check_line(&run(&mut network.train(hosts, dir.path(), 2, QUICK)), 2, parts);
    };
    for (hosts, line) in [("h1 slots=0", 1), ("h1 slots=1\nh2", 2), ("\nh1 slots=two", 2), ("h1 h2", 1)] {
        refused(hosts, &[&format!("line {line} of "), "Write 'HOST slots=N'"]);
    }
    refused("h1 slots=1\nh1 slots=1", &["names h1 twice"]);
    refused("# h1 slots=1\n", &["names no hosts"]);
    // Faults of hosts, which may be repaired meanwhile.
    let unknown = run(&mut network.train("h1 slots=1\nh9 slots=1", dir.path(), 2, QUICK));
    check_line(&unknown, 1, &["h9 does not answer: "]);
    // The host's own files hide those that both share.
    let bin = TempDir::new().unwrap();
    let (ours, theirs) = (bin.path().join("ddpm-dist"), bin.path().join("other"));
    fs::copy(env!("CARGO_BIN_EXE_ddpm-dist"), &ours).unwrap();
    write_script(&theirs, "#!/bin/sh\n");
    for (hide, parts) in [
        (
            vec!["--bind", theirs.to_str().unwrap(), ours.to_str().unwrap()],
            ["h2 and h1 have different builds", "Copy it"],
        ),
        (vec!["--bind", "/dev/null", ours.to_str().unwrap()], ["h2 may not run ", "Make it executable there"]),
        (vec!["-t", "tmpfs", "tmpfs", bin.path().to_str().unwrap()], ["h2 has no ", "Copy it there"]),
        (vec!["-t", "tmpfs", "tmpfs", dir.path().to_str().unwrap()], ["h2 does not share ", "a folder that all share"]),
    ] {
        network.event("h2", &[&["mount"][..], &hide].concat());
        check_line(&run(network.train(both, dir.path(), 2, QUICK).env("DDPM_DIST", &ours)), 1, &parts);
        network.event("h2", &["umount", hide[hide.len() - 1]]);
    }

    // The program's own refusals, once.
    let outcome = run(&mut network.train(both, dir.path(), 2, &["--set", "train.global_batch=7"]));
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
    assert_eq!(outcome.stderr.matches("error: ").count(), 1, "{}", outcome.stderr);
    let outcome = run(&mut network.train(both, dir.path(), 2, &["--set", "train.lrr=7"]));
    assert_eq!((outcome.code, outcome.stderr.matches("error: ").count()), (2, 1), "{}", outcome.stderr);

    // A request to stop does not wait for a host that hangs.
    let (hangs, begun) = (bin.path().join("hangs"), bin.path().join("begun"));
    write_script(&hangs, &format!("#!/bin/sh\n: >{}\nexec sleep 1000\n", begun.display()));
    network.event("h2", &["mount", "--bind", hangs.to_str().unwrap(), ours.to_str().unwrap()]);
    let child = start(network.train(both, dir.path(), 2, QUICK).env("DDPM_DIST", &ours));
    wait_for(|| begun.exists());
    assert!(signal("TERM", tree(child.id())[2]));
    let outcome = finish(child);
    assert_eq!(outcome.code, 75, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("stopped on request before the ranks were started"), "{}", outcome.stderr);
    assert!(!dir.path().join("metrics.jsonl").exists(), "something was started");
}
