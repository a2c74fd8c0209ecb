//! The collectives in both kinds of world, and how runs of several ranks end; with a real mpirun.

use std::path::PathBuf;
use std::process::Command;

use ddpm_comm::World;

mod job;
mod suite;

use job::Job;

/// Runs `rank SCENARIO...` (examples/rank.rs) on `ranks` ranks; returns mpirun's code and the lines.
fn run(ranks: usize, scenario: &[&str]) -> (i32, Vec<String>) {
    start(ranks, scenario).end()
}

fn start(ranks: usize, scenario: &[&str]) -> Job {
    let mut mpirun = Command::new("mpirun");
    mpirun.args(["--quiet", "--oversubscribe", "--bind-to", "none"]);
    mpirun.args(["--mca", "mpi_yield_when_idle", "1", "-np", &ranks.to_string()]);
    // The same as --allow-run-as-root; has no effect for other users.
    mpirun.envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")]);
    Job::start(mpirun.arg(example()).args(scenario))
}

/// Cargo builds examples together with tests, in a folder next to that of the tests.
fn example() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let target = test.ancestors().nth(2).expect("tests lie in target/PROFILE/deps");
    let example = target.join("examples/rank");
    assert!(example.exists(), "build it: cargo build --release -p ddpm-comm --example rank");
    example
}

/// All lines except process ids, "done", and Open MPI's message about a peer that died while its memory was being read,
/// which `--quiet` does not suppress.
fn messages(lines: &[String]) -> Vec<&str> {
    let lines = lines.iter().map(String::as_str);
    lines
        .filter(|line| !line.starts_with("pid ") && *line != "done" && !line.contains("] Read -1, expected "))
        .collect()
}

#[test]
fn solo_conforms() {
    let world = World::init().expect("tests are not started by mpirun");
    assert_eq!((world.rank(), world.size()), (0, 1));
    assert_eq!((world.local_rank(), world.local_size()), (0, 1));
    suite::check(&world.collective());
}

fn mpi_conforms(ranks: usize) {
    let (code, lines) = run(ranks, &["suite"]);
    assert_eq!(code, 0, "{lines:#?}");
    assert_eq!(messages(&lines), [""; 0]);
    assert_eq!(lines.iter().filter(|line| *line == "done").count(), ranks);
}

#[test]
fn mpi_conforms_on_1() {
    mpi_conforms(1);
}

#[test]
fn mpi_conforms_on_2() {
    mpi_conforms(2);
}

#[test]
fn mpi_conforms_on_3() {
    mpi_conforms(3);
}

#[test]
fn mpi_conforms_on_4() {
    mpi_conforms(4);
}

#[test]
fn ranks_know_their_number_and_machine() {
    let host = World::init().expect("tests are not started by mpirun").host().to_owned();
    let (code, lines) = run(3, &["location"]);
    let mut locations = messages(&lines);
    locations.sort_unstable();
    let expected: Vec<_> = (0..3).map(|rank| format!("rank {rank} of 3, {rank} of 3 on {host}")).collect();
    assert_eq!((code, locations), (0, expected.iter().map(String::as_str).collect()));
}

#[test]
fn every_rank_knows_every_link() {
    let (code, lines) = run(3, &["links"]);
    let mut links = messages(&lines);
    links.sort_unstable();
    let pairs = ["0 to 1", "0 to 2", "1 to 2"];
    let expected: Vec<_> = (0..3).flat_map(|rank| pairs.map(|pair| format!("rank {rank}: {pair}: true"))).collect();
    assert_eq!((code, links), (0, expected.iter().map(String::as_str).collect()));
}

#[test]
fn an_agreed_end_is_quiet_and_keeps_its_code() {
    let (code, lines) = run(3, &["finish", "75"]);
    assert_eq!((code, messages(&lines)), (75, vec![]));
}

#[test]
fn a_panic_ends_all_ranks() {
    let (code, lines) = run(3, &["panic"]);
    let messages = messages(&lines);
    assert_eq!((code, messages.len()), (101, 1), "{lines:#?}");
    assert!(messages[0].starts_with("rank 1 step 12: an index out of range (at "), "{lines:#?}");
}

#[test]
fn a_panic_of_another_thread_ends_all_ranks() {
    let (code, lines) = run(2, &["thread-panic"]);
    let messages = messages(&lines);
    assert_eq!((code, messages.len()), (101, 1), "{lines:#?}");
    assert!(messages[0].starts_with("rank 1 step 12: a worker failed (at "), "{lines:#?}");
}

#[test]
fn an_abort_prints_its_message_once_and_keeps_its_code() {
    let (code, lines) = run(3, &["abort", "4"]);
    assert_eq!((code, messages(&lines)), (4, vec!["rank 1 step 12: no space left on the disk"]));
}

#[test]
fn a_rank_that_leaves_without_finish_ends_the_run() {
    let (code, lines) = run(2, &["leave"]);
    let message = "rank 1 step 12: the rank left its run without World::finish. \
                   Agree with the other ranks or abort before leaving";
    assert_eq!((code, messages(&lines)), (1, vec![message]));
}

#[test]
fn a_killed_rank_ends_the_run() {
    let (code, _) = run(3, &["die"]);
    assert_eq!(code, 128 + 9);
}

#[test]
fn ranks_exit_when_mpirun_is_killed() {
    let mut job = start(2, &["wait"]);
    job.wait_for("waiting", 2);
    job.signal_group("KILL"); // ranks are in process groups of their own
    let (code, _) = job.end();
    assert_eq!(code, 128 + 9);
}

#[test]
fn a_frozen_rank_ends_the_run() {
    let (code, lines) = run(2, &["freeze"]);
    let message = "rank 0 step 12: waited 1.5 s in all_reduce: a peer is frozen or the network is down. On this \
                   machine, rank 1 is busy after all_reduce. Check what blocks it there, or raise comm.timeout_s";
    assert_eq!((code, messages(&lines)), (1, vec![message]));
}

#[test]
fn a_rank_frozen_between_two_buckets_ends_the_run() {
    let (code, lines) = run(3, &["freeze-in-bucket"]);
    let mut messages = messages(&lines);
    messages.sort_unstable();
    let message = |rank| {
        format!(
            "rank {rank} step 12: waited 1.5 s in gradient bucket 1 of 2: a peer is frozen or the network is down. On \
             this machine, rank 1 is busy after gradient bucket 2 of 2 of step 12. Check what blocks it there, or raise \
             comm.timeout_s"
        )
    };
    // Ranks 0 and 2 wait for rank 1, and each reports it before the run ends.
    assert_eq!((code, messages), (1, vec![message(0).as_str(), message(2).as_str()]));
}

#[test]
fn a_rank_frozen_at_the_end_ends_the_run() {
    let (code, lines) = run(2, &["freeze-at-end"]);
    let messages = messages(&lines);
    assert_eq!((code, messages.len()), (1, 1), "{lines:#?}");
    assert!(messages[0].starts_with("rank 0 step 12: waited 1.5 s in finish: "), "{lines:#?}");
}
