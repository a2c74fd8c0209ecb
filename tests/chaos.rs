//! Runs that are killed at every step of the save and resume protocol, and at random. Whatever was killed, all
//! checkpoints verify, none is lost, and the finished run equals an undisturbed one bit for bit.

use std::fmt;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use ddpm_checkpoint::Failpoint;
use tempfile::TempDir;

use crate::common::kill::{alive, kill_mpirun, kill_rank};
use crate::common::rig::Rig;
use crate::common::{
    Outcome, buffers_in, check_same_bits, finish, last_logged, losses, start, succeed, train, verified, wait_for,
};

/// Steps between saves.
const EVERY: u64 = 2;

/// A run so small that it spends much of its time saving.
const TINY: &[&str] = &[
    "data.count=64",
    "data.image_size=8",
    "model.channels=[4, 4]",
    "model.norm_groups=2",
    "train.global_batch=6",
    "checkpoint.every=2",
    "checkpoint.lease_s=1",
    "monitor.sample_every=0",
    "monitor.tensorboard=false",
];

/// The result of an undisturbed run of `steps` steps on `ranks` ranks, with the checkpoint of every save.
struct Reference {
    ranks: usize,
    steps: u64,
    /// Settings in addition to [`TINY`].
    settings: Vec<String>,
    dir: TempDir,
    /// The duration of the last launch from step 0 to the end; random times of kills lie within it, so they adapt to
    /// the load of the machine.
    took: Mutex<Duration>,
}

impl Reference {
    fn new(ranks: usize, steps: u64, settings: &[&str]) -> Self {
        let (dir, settings) = (TempDir::new().unwrap(), settings.iter().map(|s| s.to_string()).collect());
        let reference = Self { ranks, steps, settings, dir, took: Mutex::default() };
        let started = Instant::now();
        let all = ["--set", "checkpoint.keep_every=2"];
        succeed(reference.command(reference.dir.path(), steps).args(all));
        *reference.took.lock().unwrap() = started.elapsed();
        reference
    }

    /// The same run into `dir`.
    fn command(&self, dir: &Path, steps: u64) -> Command {
        let mut command = train(self.ranks, dir, steps, &[]);
        let settings = TINY.iter().copied().chain(self.settings.iter().map(String::as_str));
        command.args(settings.flat_map(|setting| ["--set", setting]));
        command
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("checkpoints")
    }
}

/// What is killed, and when.
#[derive(Clone, Copy)]
enum Kill {
    /// A rank, at a failpoint, the n-th time that it reaches it.
    At(Failpoint, u64, u64),
    /// A rank, this long after the launch.
    Rank(u64, Duration),
    /// mpirun, this long after the launch; the ranks remain without it.
    Mpirun(Duration),
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(point, rank, nth) => write!(f, "rank {rank} at {point:?} no. {nth}"),
            Self::Rank(rank, after) => write!(f, "rank {rank} after {} ms", after.as_millis()),
            Self::Mpirun(after) => write!(f, "mpirun after {} ms", after.as_millis()),
        }
    }
}

/// A run that is killed and relaunched.
struct Run<'a> {
    reference: &'a Reference,
    dir: TempDir,
    /// The server that it saves to; `None` for a directory.
    rig: Option<&'a Rig>,
    /// Whether the other ranks, after one has died, live until mpirun ends them 2 s later, or are killed immediately.
    linger: bool,
    /// The events so far, for messages.
    story: String,
    /// The newest checkpoint, 0 if there is none.
    newest: u64,
    /// The number of launches that were killed.
    kills: u64,
}

impl<'a> Run<'a> {
    fn new(reference: &'a Reference, rig: Option<&'a Rig>, name: &str) -> Self {
        let story = format!("{name} on {} ranks:", reference.ranks);
        Self { reference, dir: TempDir::new().unwrap(), rig, linger: false, story, newest: 0, kills: 0 }
    }

    fn store(&self) -> PathBuf {
        self.rig.map_or_else(|| self.dir.path().join("checkpoints"), |rig| rig.bucket().join("run"))
    }

    /// Launches the run until it reaches `steps` or is killed, and checks the result; returns whether it finished.
    fn launch(&mut self, steps: u64, kill: Option<Kill>, more: &[&str]) -> bool {
        let mut command = self.reference.command(self.dir.path(), steps);
        if let Some(rig) = self.rig {
            rig.serve(&mut command).args(["--set", "checkpoint.uri=s3://bucket/run"]);
        }
        if !self.linger {
            command.env("OMPI_MCA_odls_base_sigkill_timeout", "0");
        }
        if let Some(Kill::At(point, rank, nth)) = kill {
            command.env("DDPM_FAILPOINT", format!("{point:?}:{rank}:{nth}"));
        }
        let (whole, started) = (self.newest == 0 && steps == self.reference.steps, Instant::now());
        let child = start(command.args(more));
        let local = child.id();
        let killer = thread::spawn(move || match kill {
            Some(Kill::Rank(rank, after)) => {
                thread::sleep(after);
                kill_rank(local, rank).then(Vec::new)
            }
            Some(Kill::Mpirun(after)) => {
                thread::sleep(after);
                kill_mpirun(local)
            }
            Some(Kill::At(..)) | None => None,
        });
        // No rank survives for long: this fails if it takes minutes.
        let outcome = finish(child);
        if whole && outcome.code == 0 {
            *self.reference.took.lock().unwrap() = started.elapsed();
        }
        let orphans = killer.join().unwrap();
        wait_for(|| !orphans.iter().flatten().any(|&rank| alive(rank)));
        if let Some(kill) = kill {
            self.story += &format!(" {kill}{};", if outcome.code == 0 { " (ended before)" } else { "" });
        }
        let may_fail = orphans.is_some() || matches!(kill, Some(Kill::At(..)));
        assert!(outcome.code == 0 || may_fail, "{} failed unkilled: {}", self.story, outcome.stderr);
        if outcome.code != 0 {
            self.kills += 1;
            assert!(outcome.stderr.contains("killed by signal KILL"), "{} {}", self.story, outcome.stderr);
        }
        self.audit(&outcome, more.first() == Some(&"--resume"));
        outcome.code == 0
    }

    /// The invariants after every launch, however it ended. A launch that knew which checkpoint to resume from may have
    /// set one aside.
    fn audit(&mut self, outcome: &Outcome, may_give_up: bool) {
        let (stderr, story) = (&outcome.stderr, &self.story);
        let store = self.store();
        // A store that was never opened has nothing to verify.
        let saved = if store.exists() { verified(&store) } else { Vec::new() };
        let given_up = if may_give_up { EVERY } else { 0 };
        if self.newest > 0 && !may_give_up {
            assert!(!stderr.contains("starting at step 0"), "{story} {stderr}");
            let began = stderr.split_once("resuming from step ").and_then(|(_, rest)| rest.split(',').next());
            assert!(began.is_none_or(|step| step == self.newest.to_string()), "{story} {stderr}");
        }
        assert!(!stderr.contains("checkpoint is damaged"), "{story} {stderr}");
        let newest = saved.first().copied().unwrap_or(0);
        assert!(newest + given_up >= self.newest, "{story} step {} was committed and is lost: {stderr}", self.newest);
        let reached = last_logged(self.dir.path());
        assert!(
            reached <= newest + given_up + 2 * EVERY,
            "{story} at step {reached} only {newest} was saved: {stderr}"
        );
        for step in saved {
            let what = format!("{story} step {step}");
            check_same_bits(&what, &buffers_in(&store, step), &buffers_in(&self.reference.store(), step));
        }
        self.newest = newest;
    }

    /// Runs to the end, and compares the result.
    fn finish(&mut self) {
        let steps = self.reference.steps;
        assert!(self.launch(steps, None, &[]));
        assert_eq!(self.newest, steps, "{}", self.story);
        assert_eq!(losses(self.dir.path()), losses(self.reference.dir.path()), "{}", self.story);
    }
}

/// The files of a failed run are kept for inspection.
impl Drop for Run<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.dir.disable_cleanup(true);
            eprintln!("{} see {}", self.story, self.dir.path().display());
        }
    }
}

/// One run is killed at each failpoint in turn, on each rank that reaches it.
fn check_every_failpoint(rig: Option<&Rig>) {
    let reference = Reference::new(2, 40, &[]);
    let mut run = Run::new(&reference, rig, "every failpoint");
    for &point in Failpoint::ALL {
        if point == Failpoint::ResumeChosen {
            // From here on there is a checkpoint to resume from.
            assert!(run.launch(3 * EVERY, None, &[]));
        }
        for rank in 0..if on_every_rank(point) { 2 } else { 1 } {
            let before = (run.newest - run.newest.min(EVERY)).to_string();
            let resume: &[&str] = if point == Failpoint::SetAside { &["--resume", &before] } else { &[] };
            let ended = run.launch(reference.steps, Some(Kill::At(point, rank, 1)), resume);
            assert!(!ended, "rank {rank} never came to {point:?}");
        }
    }
    run.finish();
}

#[test]
fn a_run_killed_at_every_step_of_the_protocol_resumes_from_a_directory() {
    check_every_failpoint(None);
}

#[test]
fn a_run_killed_at_every_step_of_the_protocol_resumes_from_a_bucket() {
    check_every_failpoint(Some(&Rig::start()));
}

#[test]
fn a_rank_killed_between_two_parts_of_its_shard_leaves_no_checkpoint() {
    let rig = Rig::start();
    let reference = Reference::new(2, 3 * EVERY, &["model.channels=[48, 96]"]);
    let manifest = ddpm_checkpoint::Store::open_existing(reference.store().to_str().unwrap()).unwrap().read_manifest(2);
    assert!(manifest.unwrap().shards.iter().all(|shard| shard.size > 8 << 20), "a shard is but one part");
    let mut run = Run::new(&reference, Some(&rig), "between parts");
    for rank in [1, 0] {
        let newest = run.newest;
        assert!(!run.launch(reference.steps, Some(Kill::At(Failpoint::PartSent, rank, 1)), &[]));
        assert_eq!(run.newest, newest);
    }
    run.finish();
}

/// Whether every rank reaches `point`, or only rank 0.
fn on_every_rank(point: Failpoint) -> bool {
    use Failpoint::*;
    matches!(
        point,
        ResumeChosen
            | ShardRead
            | SnapshotTaken
            | UploadBegun
            | PartSent
            | PartsSent
            | UploadCompleted
            | ShardReported
            | SaveDone
    )
}

/// Whether a launch, resuming or first, can reach `point`.
fn can_reach(point: Failpoint, resumes: bool) -> bool {
    match point {
        Failpoint::SetAside => false,
        Failpoint::ResumeChosen | Failpoint::ShardRead => resumes,
        Failpoint::RunWritten => !resumes,
        _ => true,
    }
}

fn once_per_launch(point: Failpoint) -> bool {
    use Failpoint::*;
    matches!(point, LeaseAcquired | RunWritten | ResumeChosen | ShardRead | LeaseReleased)
}

/// Kills a run one to three times, depending on `seed`, then lets it finish; returns the number of kills, because the
/// run may have ended before.
fn check_seed(seed: u64, reference: &Reference) -> u64 {
    let mut random = seed;
    let mut draw = |below: u64| {
        // splitmix64
        random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    };
    let mut run = Run::new(reference, None, &format!("seed {seed}"));
    let ranks = reference.ranks as u64;
    run.linger = draw(3) == 0;
    for _ in 0..1 + draw(3) {
        let after = reference.took.lock().unwrap().mul_f64(draw(1000) as f64 / 1000.0);
        let kill = match draw(8) {
            0..4 => {
                let points: Vec<_> = Failpoint::ALL.iter().filter(|&&point| can_reach(point, run.newest > 0)).collect();
                let point = *points[draw(points.len() as u64) as usize];
                let rank = if on_every_rank(point) { draw(ranks) } else { 0 };
                Kill::At(point, rank, if once_per_launch(point) { 1 } else { 1 + draw(4) })
            }
            4..7 => Kill::Rank(draw(ranks), after),
            _ => Kill::Mpirun(after),
        };
        if run.launch(reference.steps, Some(kill), &[]) {
            break;
        }
    }
    run.finish();
    let times = if run.kills == 1 { "once".into() } else { format!("{} times", run.kills) };
    println!("{} killed {times}; equal, bit for bit", run.story);
    run.kills
}

/// scripts/chaos.sh runs more seeds with `DDPM_CHAOS_SEEDS`.
#[test]
fn randomly_killed_runs_equal_undisturbed_ones() {
    let seeds = std::env::var("DDPM_CHAOS_SEEDS").unwrap_or_else(|_| "1-8".into());
    let (first, last) = seeds.split_once('-').expect("DDPM_CHAOS_SEEDS is FIRST-LAST");
    let [two, three] = [2, 3].map(|ranks| Reference::new(ranks, 24, &[]));
    let (mut tried, mut killed, mut failed) = (0, 0, Vec::new());
    for seed in first.parse().unwrap()..=last.parse::<u64>().unwrap() {
        tried += 1;
        match catch_unwind(|| check_seed(seed, if seed % 5 == 0 { &three } else { &two })) {
            Ok(kills) => killed += u64::from(kills > 0),
            Err(_) => {
                println!("seed {seed}: FAILED");
                failed.push(seed);
            }
        }
    }
    assert!(failed.is_empty(), "seeds {failed:?} failed");
    println!("seeds {seeds}: {killed} of {tried} had something killed");
    assert!(2 * killed > tried, "only {killed} of {tried} seeds had something killed, so the others show nothing");
}
