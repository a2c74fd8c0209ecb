//! `bench step`: training steps, through the trainer that trains.

use std::time::Instant;

use super::Bench;
use super::measure::{largest, median, since_launch};
use super::report::Report;
use crate::failure::Failure;
use crate::telemetry::peak_rss_mb;

/// Times `steps` steps after `warmup` others; none if a rank was asked to stop.
pub fn run(bench: &Bench, steps: u64, warmup: u64) -> Result<Option<Report>, Failure> {
    let comm = bench.comm.as_ref();
    let mut trainer = bench.trainer()?;
    let mut first_step = None;
    let mut seconds = Vec::new();
    for step in 0..warmup + steps {
        if step == warmup {
            trainer.take_clock();
        }
        let started = Instant::now();
        if !trainer.step(&bench.stop)? {
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
        .report(trainer.parameters())
        .with("steps", steps)
        .with("images_per_s", images as f64 / seconds.iter().sum::<f64>())
        .with("median_step_s", median(seconds))
        .with("first_step_s", largest(comm, first_step.unwrap_or(f64::NAN)))
        .with("max_rss_mb", largest(comm, peak_rss_mb()))
        .with("comm_wait_s", clock.comm_wait.as_secs_f64())
        .with("data_wait_s", clock.data_wait.as_secs_f64());
    Ok(Some(report))
}
