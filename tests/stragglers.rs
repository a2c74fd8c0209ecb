//! A rank that is slowed down is named while the run goes on, and the metrics show how the ranks spend their steps.

use std::process::{Command, Stdio};

use crate::common::kill::{listens, ranks_below};
use crate::common::{finish, metrics, start, train, wait_for};
use tempfile::TempDir;

/// Stops a process for 60 % of the time until it ends; it never stays stopped.
const DUTY_CYCLE: &str = "while kill -STOP $0; do sleep 0.03; kill -CONT $0; sleep 0.02; done 2>/dev/null";

#[test]
fn a_slowed_rank_is_named_and_the_metrics_tell_the_ranks_apart() {
    let dir = TempDir::new().unwrap();
    let mut options = Vec::new();
    for option in [
        "monitor.sample_every=0",
        "monitor.tensorboard=false",
        "checkpoint.every=100000",
        // A busy machine slows down some rank by a little anyway.
        "comm.straggler_factor=1.5",
    ] {
        options.extend(["--set", option]);
    }
    // A rank is named after 10 seconds.
    let steps = 200;
    let child = start(&mut train(2, dir.path(), steps, &options));
    let ranks = || ranks_below(child.id()).into_iter().filter(|pid| listens(*pid)).collect::<Vec<_>>();
    wait_for(|| ranks().len() == 2);
    let is_rank_1 = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        environment.split(|byte| *byte == 0).any(|variable| variable == b"OMPI_COMM_WORLD_RANK=1")
    };
    let slowed = ranks().into_iter().find(is_rank_1).expect("mpirun sets it");
    let mut disturbance =
        Command::new("bash").args(["-c", DUTY_CYCLE, &slowed.to_string()]).stdin(Stdio::null()).spawn().unwrap();
    let outcome = finish(child);
    disturbance.wait().unwrap();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let named = outcome.stderr.lines().find(|line| line.contains("is a straggler"));
    assert!(named.is_some_and(|line| line.starts_with("warning: rank 1 is a straggler: ")), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("rank 0 is a straggler"), "{}", outcome.stderr);

    let lines = metrics(dir.path());
    assert!(lines[&1]["step_s_max"].is_null(), "nothing is known about the first step when it is logged");
    let of = |step: u64, key: &str| lines[&step][key].as_f64().unwrap();
    let slowest_is_1 = (10..=steps).filter(|step| of(*step, "step_compute_s_max_rank") == 1.0).count();
    assert!(slowest_is_1 > steps as usize / 2, "rank 1 was the slowest in {slowest_is_1} steps");
    for step in 2..=steps {
        for key in ["step_s", "step_data_s", "step_compute_s", "step_wait_s"] {
            let [min, median, max] = ["min", "median", "max"].map(|name| of(step, &format!("{key}_{name}")));
            assert!(min <= median && median <= max && min >= -1e-6, "{key} of step {step}: {min}, {median}, {max}");
        }
        assert!(of(step, "step_compute_s_max") <= of(step, "step_s_max"), "step {step}");
    }
}
