//! `supervise`: jobs that are killed, that lose and regain hosts, that fail in the same way again, and that are asked
//! to stop.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::{self, sleep};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::common::kill::{alive, kill_rank, tree};
use crate::common::{
    buffers, check_same_bits, finish, last_logged, losses, newest_manifest, program, refused, run, signal, start,
    succeed, train, wait_for, write_script,
};

/// What all jobs here are trained with: short leases, so that a restart after a kill is quick.
const QUIET: [&str; 8] = [
    "--set",
    "monitor.sample_every=0",
    "--set",
    "monitor.tensorboard=false",
    "--set",
    "checkpoint.lease_s=1",
    "--set",
    "train.global_batch=8",
];

/// Longer than the interval within which a second SIGTERM counts as a repetition.
const LATER: Duration = Duration::from_millis(2200);

/// `supervise` with quick restarts, its events in `dir`.
fn supervise(dir: &Path, options: &[&str], job: &[String]) -> Command {
    let mut command = program();
    command.args(["supervise", "--events"]).arg(events_file(dir));
    if !options.contains(&"--backoff") {
        command.args(["--backoff", "100ms", "--max-backoff", "200ms"]);
    }
    // For launch/local.sh and for mpirun, which is slow to find out that ranks on one machine need no network.
    command.env("DDPM_DIST", env!("CARGO_BIN_EXE_ddpm-dist")).env("OMPI_MCA_pml", "ob1");
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command.args(options).arg("--").args(job);
    command
}

/// Ends a job if its test fails: nobody else does.
struct Guard(u32);

impl Drop for Guard {
    fn drop(&mut self) {
        if thread::panicking() {
            tree(self.0).into_iter().for_each(|pid| _ = signal("KILL", pid));
        }
    }
}

/// The words of a command.
fn words(command: &Command) -> Vec<String> {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(|word| word.to_str().unwrap().to_owned()).collect()
}

fn events_file(dir: &Path) -> PathBuf {
    dir.join("events.jsonl")
}

/// The events so far of this kind.
fn events(dir: &Path, kind: &str) -> Vec<Value> {
    let text = fs::read_to_string(events_file(dir)).unwrap_or_default();
    // The last line may be incomplete yet.
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["event"] == kind).collect()
}

/// The last event, whose times add up.
fn summary(dir: &Path) -> Value {
    let summary = events(dir, "summary").pop().unwrap();
    let seconds = |key: &str| summary[key].as_f64().unwrap();
    let sum: f64 = ["trained_s", "lost_s", "waiting_s", "other_s"].map(seconds).iter().sum();
    assert!((sum - seconds("wall_s")).abs() < 0.01, "{summary}");
    assert!((seconds("goodput") - seconds("trained_s") / seconds("wall_s")).abs() < 0.002, "{summary}");
    summary
}

#[test]
fn a_killed_rank_costs_a_restart_and_not_a_bit() {
    const STEPS: u64 = 200;
    let (dir, straight) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let options = [&QUIET[..], &["--set", "checkpoint.every=50"]].concat();
    succeed(&mut train(2, straight.path(), STEPS, &options));
    let job = words(&train(2, dir.path(), STEPS, &options));
    let child = start(&mut supervise(dir.path(), &[], &job));
    let _guard = Guard(child.id());
    // Between two saves, so that steps are computed again.
    wait_for(|| last_logged(dir.path()) > newest_manifest(&dir.path().join("checkpoints")).max(55));
    let local = events(dir.path(), "started")[0]["pid"].as_u64().unwrap() as u32;
    wait_for(|| kill_rank(local, 1));
    let outcome = finish(child);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    check_same_bits("after a kill", &buffers(dir.path(), STEPS), &buffers(straight.path(), STEPS));
    assert_eq!(losses(dir.path()), losses(straight.path()));

    let exits = events(dir.path(), "exited");
    let endings: Vec<&str> = exits.iter().map(|exit| exit["ending"].as_str().unwrap()).collect();
    assert_eq!(endings, ["failed", "done"]);
    assert_eq!((&exits[1]["exit_code"], &exits[1]["step"]), (&0.into(), &STEPS.into()));
    assert_eq!(events(dir.path(), "waiting")[0]["reason"], "backoff");
    let summary = summary(dir.path());
    assert_eq!((&summary["outcome"], &summary["exit_code"]), (&"done".into(), &0.into()));
    assert_eq!((&summary["restarts"], &summary["trained_steps"]), (&1.into(), &STEPS.into()));
    for key in ["lost_steps", "lost_s", "trained_s", "waiting_s", "goodput"] {
        assert!(summary[key].as_f64().unwrap() > 0.0, "{key}: {summary}");
    }
    assert!(outcome.stderr.contains("the job is done\n"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(&format!(" trained {STEPS} steps, ")), "{}", outcome.stderr);
}

/// A job on hosts that all are this machine: mpirun is told only how many ranks to start, and a file `NAME.down` makes
/// the probe of a host fail.
struct Cluster(TempDir);

impl Cluster {
    fn new(hosts: &str) -> Self {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("hosts"), hosts).unwrap();
        Self(dir)
    }

    fn dir(&self) -> &Path {
        self.0.path()
    }

    fn set_up(&self, host: &str, up: bool) {
        let down = self.dir().join(format!("{host}.down"));
        if up { fs::remove_file(down).unwrap() } else { fs::write(down, "").unwrap() }
    }

    fn start(&self, steps: u64) -> Child {
        let launcher = "env HOSTFILE={hosts} mpirun -np {ranks} --oversubscribe --bind-to none \
                        --mca mpi_yield_when_idle 1 --quiet";
        // The first two words are launch/local.sh and its number of ranks.
        let training = words(&train(1, self.dir(), steps, &QUIET)).split_off(2);
        let mut job: Vec<String> = launcher.split_whitespace().map(Into::into).collect();
        job.extend([env!("CARGO_BIN_EXE_ddpm-dist").to_owned()].into_iter().chain(training));
        let hosts = self.dir().join("hosts").display().to_string();
        let probe = format!("test ! -e {}/{{host}}.down", self.dir().display());
        let options = ["--hosts", &hosts, "--probe", &probe, "--probe-every", "1s", "--settle", "500ms"];
        start(&mut supervise(self.dir(), &options, &job))
    }

    /// The ranks of each start so far.
    fn ranks(&self) -> Vec<u64> {
        events(self.dir(), "started").iter().map(|event| event["ranks"].as_u64().unwrap()).collect()
    }

    fn hosts(&self, kind: &str) -> Vec<String> {
        events(self.dir(), kind).iter().map(|event| event["host"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits for the `n`-th start, and until it has come further than those before.
    fn wait_for_start(&self, n: usize) {
        wait_for(|| self.ranks().len() == n);
        let reached = last_logged(self.dir());
        wait_for(|| last_logged(self.dir()) > reached + 5);
    }
}

#[test]
fn a_job_follows_its_hosts_and_saves_when_asked_to_stop() {
    let cluster = Cluster::new("a slots=1\nb slots=1\nc slots=1\n");
    cluster.set_up("b", false);
    cluster.set_up("c", false);
    let child = cluster.start(1_000_000);
    let _guard = Guard(child.id());
    cluster.wait_for_start(1);
    let mut dropped = cluster.hosts("host_dropped");
    // They are asked at the same time.
    dropped.sort();
    assert_eq!(dropped, ["b", "c"]);
    // Of two and three ranks, two divide the batch of eight.
    cluster.set_up("b", true);
    cluster.set_up("c", true);
    cluster.wait_for_start(2);
    assert_eq!(events(cluster.dir(), "stopping")[0]["reason"], "grow");
    assert_eq!(events(cluster.dir(), "exited")[0]["ending"], "stopped");
    assert_eq!(events(cluster.dir(), "started")[1]["hosts"][1]["name"], "b");
    // The third takes the place of one that is lost.
    cluster.set_up("b", false);
    // It may not have executed the program yet.
    wait_for(|| kill_rank(child.id(), 1));
    cluster.wait_for_start(3);
    assert_eq!(events(cluster.dir(), "started")[2]["hosts"][1]["name"], "c");
    assert_eq!(cluster.ranks(), [1, 2, 2]);

    assert!(signal("TERM", child.id()));
    let outcome = finish(child);
    assert_eq!(outcome.code, 75, "{}", outcome.stderr);
    let reached = last_logged(cluster.dir());
    assert_eq!(newest_manifest(&cluster.dir().join("checkpoints")), reached, "stopped without saving");
    let summary = summary(cluster.dir());
    assert_eq!((&summary["outcome"], &summary["restarts"]), (&"stopped".into(), &2.into()));
    assert_eq!((&summary["step"], &summary["trained_steps"]), (&reached.into(), &reached.into()));
}

#[test]
fn a_failure_that_repeats_ends_after_two_tries() {
    let dir = TempDir::new().unwrap();
    let diverging = ["train.lr=1e30", "train.grad_clip=0", "train.skip_nonfinite=3", "checkpoint.every=1000"];
    let options: Vec<&str> = QUIET.into_iter().chain(diverging.into_iter().flat_map(|set| ["--set", set])).collect();
    let job = words(&train(2, dir.path(), 1000, &options));
    let outcome = run(&mut supervise(dir.path(), &[], &job));
    assert_eq!(outcome.code, 7, "{}", outcome.stderr);
    let exits = events(dir.path(), "exited");
    assert_eq!(exits.len(), 2, "{exits:?}");
    for exit in &exits {
        assert_eq!(exit["exit_code"], 5);
        assert_eq!(exit["failed_step"], exits[0]["step"]);
        assert!(exit["message"].as_str().unwrap().starts_with("training diverged: "), "{exit}");
    }
    assert_eq!(summary(dir.path())["outcome"], "repeated_failure");
    assert!(outcome.stderr.contains("error: the job failed twice at step "), "{}", outcome.stderr);
}

/// A job that a shell pretends to be.
fn pretended(script: &str) -> Vec<String> {
    ["bash", "-c", script, "train", "train", "--config", "smoke"].map(String::from).to_vec()
}

#[test]
fn restarts_are_limited() {
    let dir = TempDir::new().unwrap();
    let job = pretended("exit 9");
    let outcome = run(&mut supervise(dir.path(), &["--max-restarts", "3"], &job));
    assert_eq!(outcome.code, 8, "{}", outcome.stderr);
    assert_eq!(events(dir.path(), "started").len(), 4);
    let summary = summary(dir.path());
    assert_eq!((&summary["outcome"], &summary["exit_code"]), (&"restarts_exhausted".into(), &9.into()));
    assert_eq!(summary["goodput"], 0.0);
    assert_eq!(run(&mut supervise(dir.path(), &[], &pretended("exit 2"))).code, 2);
}

#[test]
fn a_start_that_fails_is_tried_again_unless_the_command_is_wrong_from_the_start() {
    let dir = TempDir::new().unwrap();
    let missing = ["/nowhere/mpirun", "train", "--config", "smoke"].map(String::from);
    let outcome = run(&mut supervise(dir.path(), &[], &missing));
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("/nowhere/mpirun cannot be started"), "{}", outcome.stderr);
    assert!(events(dir.path(), "started").is_empty());
    assert_eq!(summary(dir.path())["outcome"], "bad_usage");

    // It disappears with its first run, and so does the folder of the supervisor's files.
    let launcher = dir.path().join("launcher");
    let (temporary, script) = (dir.path().join("tmp"), "#!/bin/bash\nrm -r \"${DDPM_STOP_FILE%/*}\" \"$0\"\nexit 9\n");
    fs::create_dir(&temporary).unwrap();
    write_script(&launcher, script);
    let job = [launcher.to_str().unwrap(), "train", "--config", "smoke"].map(String::from);
    let options = ["--max-restarts", "2"];
    let outcome = run(supervise(dir.path(), &options, &job).env("TMPDIR", &temporary));
    assert_eq!(outcome.code, 8, "{}", outcome.stderr);
    let summary = summary(dir.path());
    assert_eq!((&summary["outcome"], &summary["starts"]), (&"restarts_exhausted".into(), &3.into()));
}

#[test]
fn a_request_between_two_starts_ends_it() {
    let dir = TempDir::new().unwrap();
    let child = start(&mut supervise(dir.path(), &["--max-backoff", "1h", "--backoff", "1h"], &pretended("exit 9")));
    let _guard = Guard(child.id());
    wait_for(|| !events(dir.path(), "waiting").is_empty());
    assert!(signal("TERM", child.id()));
    assert_eq!(finish(child).code, 75);
    assert_eq!(events(dir.path(), "started").len(), 1);
}

#[test]
fn a_second_request_ends_a_job_that_does_not_save() {
    let dir = TempDir::new().unwrap();
    let child = start(&mut supervise(dir.path(), &[], &pretended("while :; do sleep 0.05; done")));
    let _guard = Guard(child.id());
    wait_for(|| !events(dir.path(), "started").is_empty());
    let job = events(dir.path(), "started")[0]["pid"].as_u64().unwrap() as u32;
    assert!(signal("TERM", child.id()));
    wait_for(|| !events(dir.path(), "stopping").is_empty());
    sleep(LATER);
    assert!(alive(job));
    assert!(signal("TERM", child.id()));
    assert_eq!(finish(child).code, 143);
    assert!(!alive(job));
}

#[test]
fn what_cannot_be_supervised_is_refused_before_it_starts() {
    let dir = TempDir::new().unwrap();
    let hosts = dir.path().join("hosts").display().to_string();
    fs::write(&hosts, "a slots=3\nb\n").unwrap();
    let smoke = "mpirun -np {ranks} --hostfile {hosts} ddpm-dist train --config smoke";
    for (options, job, parts) in [
        ("", "launch/local.sh 2 sample", &["the command does not train", "`ddpm-dist train`"][..]),
        ("", "launch/local.sh 2 train --config smoke --resume 10", &["Leave --resume out"]),
        ("", "launch/local.sh 2 train --config -", &["Name a file"]),
        ("", "launch/local.sh 2 train --config smoke --set train.stepz=1", &["train.steps"]),
        ("", smoke, &["{ranks} and {hosts}", "--hosts"]),
        ("--hosts HOSTS", "launch/local.sh 2 train --config smoke", &["`-np {ranks} --hostfile {hosts}`"]),
        ("--hosts HOSTS", smoke, &["HOSTS line 2", "b slots=N"]),
        ("--hosts nowhere", smoke, &["cannot read the hosts in nowhere"]),
        ("--backoff 5", "launch/local.sh 2 train --config smoke", &["--backoff", "5m"]),
        ("--probe-every 0s", "launch/local.sh 2 train --config smoke", &["--probe-every", "at least 1s"]),
    ] {
        let options: Vec<String> = options.split_whitespace().map(|word| word.replace("HOSTS", &hosts)).collect();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let job: Vec<String> = job.split(' ').map(Into::into).collect();
        let parts: Vec<String> = parts.iter().map(|part| part.replace("HOSTS", &hosts)).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        refused(&mut supervise(dir.path(), &options, &job), 2, &parts);
    }
    assert!(events(dir.path(), "started").is_empty());
    let ranks = ["--min-ranks", "3", "--hosts", &hosts];
    fs::write(&hosts, "a slots=3\n").unwrap();
    let job: Vec<String> = smoke.split(' ').map(Into::into).collect();
    refused(&mut supervise(dir.path(), &ranks, &job), 2, &["no number of ranks from 3 to 3", "lower --min-ranks"]);
    let mut nested = supervise(dir.path(), &[], &pretended("exit 0"));
    refused(nested.env("PMIX_RANK", "0"), 2, &["Start it without one"]);
}
