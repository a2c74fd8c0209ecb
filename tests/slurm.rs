//! Jobs of `launch/slurm.sbatch`, on a Slurm cluster that `scripts/slurm_cluster.sh` runs on this machine: whatever
//! interrupts a job, it goes on by itself, and ends with the weights of a job that was not interrupted.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::common::kill::{listens, ranks_below, suspended};
use crate::common::{
    buffers, check_same_bits, last_logged, losses, mpirun, newest_manifest, program, root, run, signal, succeed,
    wait_for, wait_for_step,
};
use crate::fake;

const STEPS: u64 = 100;

/// The arguments that jobs have in common with the run that nothing disturbs; as many steps.
const ARGUMENTS: &[&str] = &["--steps", "100", "--set", "monitor.sample_every=0"];

/// Two ranks, on two nodes.
const TWO_NODES: &[&str] = &["--nodes=2", "--ntasks-per-node=1"];

/// A cluster of two nodes, killed with all its jobs when it is dropped.
struct Cluster {
    child: Child,
    dir: TempDir,
}

impl Cluster {
    fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let mut command = Command::new(root().join("scripts/slurm_cluster.sh"));
        command.arg("up").arg(dir.path().join("cluster"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n", "the cluster has not started: see its message on stderr");
        Self { child, dir }
    }

    /// A command on the head node, with the environment of [`program`].
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(root().join("scripts/slurm_cluster.sh"));
        command.arg("on").arg(self.dir.path().join("cluster")).args(words).current_dir(root());
        let of_program = program();
        for (name, value) in of_program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        // Unlike mpirun, srun does not tell ranks that they share processors.
        command.env("OMPI_MCA_mpi_yield_when_idle", "1");
        command.env("DDPM_DIST", of_program.get_program()).env("DDPM_LOGS", self.dir.path().join("logs"));
        command
    }

    /// What a command on the head node prints.
    fn ask(&self, words: &[&str]) -> String {
        succeed(&mut self.command(words)).stdout.trim().into()
    }

    /// Submits `launch/slurm.sbatch` with these options of sbatch, to train with these arguments.
    fn submit(&self, name: &str, options: &[&str], arguments: &[&str], environment: &[(&str, &str)]) -> Job<'_> {
        let output = self.dir.path().join(name.to_owned() + ".out");
        let run = self.dir.path().join(name);
        let mut command = self.command(&["sbatch", "--parsable", "--output"]);
        command.arg(&output).args(options).args(["launch/slurm.sbatch", "train", "--config", "smoke", "--set"]);
        command.arg(format!("run.dir={}", run.display())).args(arguments).envs(environment.iter().copied());
        let id = succeed(&mut command).stdout.trim().to_owned();
        Job { cluster: self, logs: self.dir.path().join("logs").join(&id), id, run, output }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

struct Job<'a> {
    cluster: &'a Cluster,
    id: String,
    /// The folder of the run.
    run: PathBuf,
    /// The batch script's messages.
    output: PathBuf,
    /// The folder of the ranks' logs.
    logs: PathBuf,
}

impl Job<'_> {
    fn said(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// The log of a rank, of the job's n-th start, counted from 0.
    fn log(&self, start: usize, rank: usize) -> String {
        let path = self.logs.join(format!("start-{start}/rank-{rank}.log"));
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}; {}", path.display(), self.said()))
    }

    /// Suspends its two ranks in the midst of training, so that it cannot finish before something happens to it.
    fn suspend(&self) -> [u32; 2] {
        wait_for_step(&self.run, 5);
        let mine = format!("SLURM_JOB_ID={}", self.id);
        let is_mine = |pid: &u32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mine.as_bytes())
        };
        let ranks: Vec<u32> = ranks_below(self.cluster.child.id()).into_iter().filter(is_mine).collect();
        let ranks: [u32; 2] = ranks.try_into().unwrap_or_else(|ranks| panic!("{ranks:?}: {}", self.said()));
        for rank in &ranks {
            assert!(listens(*rank) && signal("STOP", *rank));
        }
        wait_for(|| ranks.iter().all(|rank| suspended(*rank)));
        ranks
    }

    /// Waits until its batch script has said this.
    fn wait_for(&self, message: &str) {
        wait_for(|| self.said().contains(message));
    }

    /// Waits until it has finished, and asserts that it was requeued in between, went on from where it had stopped, and
    /// trained like the run in `undisturbed`.
    fn check_finished(&self, undisturbed: &Path) {
        self.wait_for("the ranks ended with exit code 0");
        let resumed = self.log(1, 0);
        let from = resumed.lines().find_map(|line| line.split_once("resuming from step ")?.1.split_once(','));
        let from: u64 = from.unwrap_or_else(|| panic!("{resumed}")).0.parse().unwrap();
        assert!((5..STEPS).contains(&from), "{resumed}");
        let stopped = self.log(0, 0);
        assert!(stopped.contains("stopped on request; the same command resumes from here"), "{stopped}");
        check_same_bits(&self.said(), &buffers(&self.run, STEPS), &buffers(undisturbed, STEPS));
        assert_eq!(losses(&self.run), losses(undisturbed));
    }
}

/// A run of as many ranks that nothing disturbs.
fn undisturbed() -> TempDir {
    let dir = TempDir::new().unwrap();
    let mut command = mpirun(2);
    command.args(["train", "--config", "smoke", "--set"]).arg(format!("run.dir={}", dir.path().display()));
    succeed(command.args(ARGUMENTS));
    dir
}

const SIGUSR1: u32 = 10;

/// Whether a process, such as a suspended one, has been sent this signal and has not handled it yet.
fn is_pending(signal: u32, pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let masks = status.lines().filter_map(|line| line.strip_prefix("SigPnd:").or(line.strip_prefix("ShdPnd:")));
    masks.filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok()).any(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Slurm compares jobs with their limits twice a minute, and waits for half a minute for a rank that has lost another.
#[test]
fn a_job_at_its_time_limit_goes_on_in_a_requeued_one_and_a_failed_job_does_not() {
    let cluster = Cluster::start();
    let limited = [TWO_NODES, &["--time=1", "--signal=B:USR1@10"]].concat();
    let submit = |name: &str, options: &[&str], launcher: &str| {
        cluster.submit(name, options, ARGUMENTS, &[("DDPM_LAUNCHER", launcher)])
    };
    let launchers = ["srun", "mpirun"];
    let jobs = launchers.map(|launcher| submit(launcher, &limited, launcher));
    let ranks = jobs.each_ref().map(Job::suspend);
    let failing = launchers.map(|launcher| submit(&format!("failing-{launcher}"), TWO_NODES, launcher));
    for job in &failing {
        let [one, other] = job.suspend();
        assert!(signal("KILL", other) && signal("CONT", one));
    }
    let undisturbed = undisturbed();
    for ((job, ranks), launcher) in jobs.iter().zip(&ranks).zip(launchers) {
        job.wait_for("the time limit is near: asked the ranks to save");
        assert!(job.said().contains(&format!("ranks by {launcher} on node[1-2]; ")), "{}", job.said());
        wait_for(|| ranks.iter().all(|rank| is_pending(SIGUSR1, *rank)));
        for rank in ranks {
            assert!(signal("CONT", *rank));
        }
    }
    for job in &jobs {
        job.wait_for("the ranks ended with exit code 75");
        job.check_finished(undisturbed.path());
    }
    for job in &failing {
        job.wait_for("the ranks ended with exit code 137");
        let state = cluster.ask(&["scontrol", "show", "job", &job.id]);
        assert!(state.contains("JobState=FAILED") && state.contains("Restarts=0"), "{state}");
    }
}

#[test]
#[ignore = "long; docs/launching.md says how to run it"]
fn a_preempted_job_saves_and_goes_on_when_the_nodes_are_free() {
    let (cluster, undisturbed) = (Cluster::start(), undisturbed());
    let job = cluster.submit("job", &[TWO_NODES, &["--exclusive"]].concat(), ARGUMENTS, &[]);
    job.suspend();
    // Slurm continues suspended processes when it preempts a job.
    let urgent = ["sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--exclusive", "--wrap=sleep 1"];
    let urgent = cluster.ask(&[&urgent[..], &["--output=/dev/null"]].concat());
    job.wait_for("the ranks ended with exit code 75");
    wait_for(|| cluster.ask(&["scontrol", "show", "job", &urgent]).contains("JobState=COMPLETED"));
    job.check_finished(undisturbed.path());
}

#[test]
#[ignore = "long; docs/launching.md says how to run it"]
fn a_job_whose_node_is_set_down_goes_on_when_it_is_back() {
    let (cluster, undisturbed) = (Cluster::start(), undisturbed());
    let job = cluster.submit("job", TWO_NODES, ARGUMENTS, &[]);
    job.suspend();
    cluster.ask(&["scontrol", "update", "NodeName=node2", "State=DOWN", "Reason=test"]);
    job.wait_for("DUE TO NODE FAILURE");
    job.check_finished(undisturbed.path());
}

#[test]
fn a_cancelled_job_saves_and_does_not_come_back() {
    let (cluster, undisturbed) = (Cluster::start(), undisturbed());
    let job = cluster.submit("job", TWO_NODES, ARGUMENTS, &[]);
    wait_for_step(&job.run, 5);
    cluster.ask(&["scancel", &job.id]);
    job.wait_for("the ranks ended with exit code 75");
    let saved = newest_manifest(&job.run.join("checkpoints"));
    assert_eq!(saved, last_logged(&job.run), "{}", job.log(0, 0));
    wait_for(|| cluster.ask(&["squeue", "--noheader"]).is_empty());
    assert!(!job.said().contains("requeue"), "{}", job.said());
    // The same command goes on from there.
    let again = cluster.submit("job", TWO_NODES, ARGUMENTS, &[]);
    again.wait_for("the ranks ended with exit code 0");
    assert!(again.log(0, 0).contains(&format!("resuming from step {saved},")), "{}", again.log(0, 0));
    check_same_bits("again", &buffers(&again.run, STEPS), &buffers(undisturbed.path(), STEPS));
}

/// The fake library's GPUs are those that Slurm lets each rank see.
#[test]
fn each_rank_computes_on_a_gpu_of_its_own() {
    let cluster = Cluster::start();
    let library = fake::library(env!("CARGO_TARGET_TMPDIR"), &["-DHOST_MEMORY"]);
    let library = library.to_str().unwrap();
    let (task, node) = ("--gpus-per-task=1", "--gpus-per-node=2");
    let (one_each, shared) = (["0 of the 1 ", "0 of the 1 "], ["0 of the 2 ", "1 of the 2 "]);
    let cases = [
        ("srun-task", task, ("DDPM_LAUNCHER", "srun"), one_each),
        ("srun-node", node, ("DDPM_LAUNCHER", "srun"), shared),
        ("mpirun-task", task, ("DDPM_LAUNCHER", "mpirun"), shared),
        ("mpirun-node", node, ("DDPM_LAUNCHER", "mpirun"), shared),
        ("without-uuids", task, ("FAKE_FAIL", "cudaGetDeviceProperties:1"), one_each),
    ];
    let jobs = cases.map(|(name, gpus, variable, _)| {
        let options = ["--nodes=1", "--ntasks=2", gpus];
        let arguments = ["--steps", "5", "--all-ranks", "--set", "train.device=cuda"];
        let fakes = [("DDPM_NCCL_LIB", library), ("DDPM_CUDART_LIB", library), ("FAKE_GPUS", "visible"), variable];
        cluster.submit(name, &options, &arguments, &fakes)
    });
    for (job, (name, _, _, takes)) in jobs.iter().zip(cases) {
        job.wait_for("the ranks ended with exit code ");
        for (rank, takes) in takes.iter().enumerate() {
            let log = job.log(0, rank);
            assert!(log.contains(&format!("computing on GPU {takes}")), "{name}: {log}");
            assert!(log.contains("each of 2 rank(s) has a GPU"), "{name}: {log}");
            let label = format!(", number {rank} on node");
            assert_eq!(log.contains(&label), name == "without-uuids", "{name}: {log}");
        }
        assert!(job.said().contains("exit code 0"), "{name}: {}", job.said());
    }
}

/// Each task of an array takes its line of the file, and each rank has its log.
#[test]
fn an_array_is_a_sweep() {
    let cluster = Cluster::start();
    let (lines, logs) = (cluster.dir.path().join("sweep"), cluster.dir.path().join("logs"));
    let dir = |task: usize| cluster.dir.path().join(format!("sweep-{task}"));
    let line = |task: usize| format!("--set train.lr=1e-{} --set run.dir={}\n", 3 + task, dir(task).display());
    fs::write(&lines, line(0) + &line(1)).unwrap();
    let sweep = [("DDPM_SWEEP", lines.to_str().unwrap())];
    let array = cluster.submit("array", &[TWO_NODES, &["--array=0-2"]].concat(), &["--steps", "5"], &sweep);
    wait_for(|| cluster.ask(&["squeue", "--noheader"]).is_empty());
    for task in 0..2 {
        let settings = fs::read_to_string(dir(task).join("config.toml")).unwrap();
        assert!(settings.contains(&format!("lr = {}", [0.001, 0.0001][task])), "{settings}");
        for rank in 0..2 {
            assert!(logs.join(format!("{}_{task}/start-0/rank-{rank}.log", array.id)).is_file());
        }
    }
    assert!(array.said().contains("has 2 line(s), so none for task 2. "), "{}", array.said());
    assert!(!logs.join(format!("{}_2", array.id)).exists());
}

#[test]
fn the_batch_script_refuses_what_cannot_work() {
    let script = || {
        let mut command = Command::new(root().join("launch/slurm.sbatch"));
        command.env_remove("SLURM_JOB_ID").env("DDPM_DIST", "/nowhere/ddpm-dist");
        command
    };
    let refused_with = |command: &mut Command, part: &str| {
        let outcome = run(command);
        assert_eq!(outcome.code, 2, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(part) && outcome.stderr.lines().count() == 1, "{}", outcome.stderr);
    };
    refused_with(&mut script(), "Submit it: sbatch launch/slurm.sbatch ARGS...");
    refused_with(script().env("SLURM_JOB_ID", "1"), "/nowhere/ddpm-dist cannot be run on ");
}
