//! `bench step`: training steps, through the trainer that trains.

use std::path::Path;
use std::time::{Duration, Instant};

use tch_ext::Cost;

use super::Bench;
use super::measure::{largest, median, since_launch};
use super::report::Report;
use crate::failure::Failure;
use crate::output::say;
use crate::trainer::{Profile, RECORDED};

/// How many operators the table names.
const NAMED: usize = 15;

/// Times `steps` steps after `warmup` others, and traces further ones to `profile`; none if a rank was asked to stop.
pub fn run(bench: &Bench, steps: u64, warmup: u64, profile: Option<&Path>) -> Result<Option<Report>, Failure> {
    let comm = bench.comm.as_ref();
    let profile = profile.map(|file| Profile::open(&bench.comm, file)).transpose()?;
    let mut trainer = bench.trainer()?;
    let mut first_step = None;
    let mut seconds = Vec::new();
    for step in 0..warmup + steps {
        if step == warmup {
            trainer.take_clock();
        }
        let started = Instant::now();
        if !trainer.step(bench.stop)? {
            return Ok(None);
        }
        first_step.get_or_insert_with(since_launch);
        if step >= warmup {
            seconds.push(started.elapsed().as_secs_f64());
        }
    }
    let clock = trainer.take_clock();
    let images = steps * bench.settings.train.global_batch as u64;
    let report = bench
        .report(Some(trainer.parameters()))
        .with("steps", steps)
        .with("images_per_s", images as f64 / seconds.iter().sum::<f64>())
        .with("median_step_s", median(seconds))
        .with("first_step_s", largest(comm, first_step.unwrap_or(f64::NAN)))
        .with("comm_wait_s", clock.comm_wait.as_secs_f64())
        .with("data_wait_s", clock.data_wait.as_secs_f64());
    if let Some(mut profile) = profile {
        profile.start()?;
        for _ in 0..RECORDED {
            if !trainer.step(bench.stop)? {
                return Ok(None);
            }
        }
        let costs = profile.save()?;
        if comm.rank() == 0 {
            say(table(&costs).trim_end());
        }
    }
    Ok(Some(report))
}

/// The operators and ranges that took most of the steps recorded.
fn table(costs: &[Cost]) -> String {
    let total: Duration = costs.iter().map(|cost| cost.self_time).sum();
    let per_step = |time: Duration| time.as_secs_f64() * 1e3 / RECORDED as f64;
    let mut lines = format!(
        "rank 0, {:.1} ms a step with the profiler, by self time\n{:>7} {:>10} {:>9}  operator\n",
        per_step(total),
        "share",
        "ms a step",
        "calls"
    );
    for cost in costs.iter().take(NAMED) {
        let share = 100.0 * cost.self_time.as_secs_f64() / total.as_secs_f64();
        let time = per_step(cost.self_time);
        let calls = cost.calls as f64 / RECORDED as f64;
        let beyond = if cost.range { ", outside of operators" } else { "" };
        lines += &format!("{share:>6.1}% {time:>10.2} {calls:>9.1}  {}{beyond}\n", cost.name);
    }
    lines
}
