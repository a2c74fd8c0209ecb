//! launch/local.sh: what it passes on, in both directions.

use std::process::Command;

mod job;

use job::Job;

/// Starts launch/local.sh with tests/trainer.sh in the place of ddpm-dist.
fn local(ranks: &str, args: &[&str]) -> Job {
    let here = env!("CARGO_MANIFEST_DIR");
    let mut script = Command::new(format!("{here}/../../launch/local.sh"));
    script.env("DDPM_DIST", format!("{here}/tests/trainer.sh"));
    script.env_remove("OMP_NUM_THREADS");
    Job::start(script.arg(ranks).args(args))
}

fn count(lines: &[String], start: &str) -> usize {
    lines.iter().filter(|line| line.starts_with(start)).count()
}

#[test]
fn a_signal_lets_the_ranks_save() {
    let mut job = local("2", &[]);
    job.wait_for("training", 2);
    job.signal_group("TERM");
    let (code, lines) = job.end();
    assert_eq!((code, count(&lines, "saved with ")), (75, 2), "{lines:#?}");
    assert_eq!(count(&lines, "local.sh: asked the ranks to save and stop"), 1, "{lines:#?}");
    assert_eq!(count(&lines, "-----"), 0, "mpirun's own words: {lines:#?}");
}

#[test]
fn a_signal_lets_a_single_rank_save() {
    let mut job = local("1", &[]);
    job.wait_for("training", 1);
    job.signal_group("USR1");
    let (code, lines) = job.end();
    assert_eq!((code, count(&lines, "saved with ")), (75, 1), "{lines:#?}");
}

#[test]
fn a_second_signal_ends_the_ranks() {
    let mut job = local("2", &["stubborn"]);
    job.wait_for("training", 2);
    job.signal_group("TERM");
    job.wait_for("busy", 2);
    job.signal_group("TERM");
    let (code, lines) = job.end();
    assert_ne!(code, 0, "{lines:#?}");
}

#[test]
fn the_exit_code_is_the_ranks_own() {
    for ranks in ["1", "2"] {
        for code in [0, 3] {
            let (seen, lines) = local(ranks, &[&code.to_string()]).end();
            assert_eq!((seen, lines.len()), (code, 0), "{lines:#?}");
        }
    }
}

#[test]
fn a_killed_rank_is_named() {
    let (code, lines) = local("2", &["killed"]).end();
    assert_eq!(code, 128 + 9, "{lines:#?}");
    assert_eq!(count(&lines, "local.sh: a rank was killed by signal KILL"), 1, "{lines:#?}");
}

#[test]
fn bad_usage_is_refused() {
    for ranks in ["", "0", "two", "--help"] {
        let (code, lines) = local(ranks, &[]).end();
        assert_eq!((code, lines.len()), (2, 1), "{lines:#?}");
    }
}
