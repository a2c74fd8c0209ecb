//! `bench step`: training steps, run by the same trainer as `train`.

use std::path::Path;
use std::time::{Duration, Instant};

use ddpm_model::Failure;
use ddpm_train::{Profile, RECORDED};
use tch_ext::{Cost, CostKind, GpuMemory};

use crate::context::Bench;
use crate::measure::{largest, median, since_launch};
use crate::report::Report;

/// How many operators the table lists.
const NAMED: usize = 15;
/// Characters of a name that are printed.
const NAME_LENGTH: usize = 100;

/// Times `steps` steps after `warmup` others, then traces a few more to `profile`; None if a rank was asked to stop.
pub fn step(bench: &Bench, steps: u64, warmup: u64, profile: Option<&Path>) -> Result<Option<Report>, Failure> {
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
        if !trainer.step()? {
            return Ok(None);
        }
        first_step.get_or_insert_with(since_launch);
        if step >= warmup {
            seconds.push(started.elapsed().as_secs_f64());
        }
    }
    let clock = trainer.take_clock();
    let memory = GpuMemory::peak(bench.place.device)?.map(|peak| peak.reserved as f64 / 1e6);
    let images = steps * bench.settings.train.global_batch as u64;
    let images_per_s = images as f64 / seconds.iter().sum::<f64>();
    let tflops = trainer.flops()? * images_per_s / comm.size() as f64 / 1e12;
    let report = bench
        .report(Some(trainer.parameters()))
        .with("steps", steps)
        .with("images_per_s", images_per_s)
        .with("tflops", tflops)
        .with("mfu", trainer.peak_tflops().map(|peak| tflops / peak))
        .with("median_step_s", median(seconds))
        .with("first_step_s", largest(comm, first_step.unwrap_or(f64::NAN)))
        .with("comm_wait_s", clock.comm_wait.as_secs_f64())
        .with("data_wait_s", clock.data_wait.as_secs_f64())
        .with("gpu_reserved_mb", memory);
    if let Some(mut profile) = profile {
        profile.start()?;
        for _ in 0..RECORDED {
            if !trainer.step()? {
                return Ok(None);
            }
        }
        let costs = profile.save()?;
        return Ok(Some(report.noting(tables(&costs))));
    }
    Ok(Some(report))
}

/// The operators and ranges that took the most time in the recorded steps, and on a GPU the kernels.
fn tables(costs: &[Cost]) -> String {
    let (kernels, others): (Vec<&Cost>, Vec<&Cost>) = costs.iter().partition(|cost| cost.kind == CostKind::Kernel);
    if kernels.is_empty() {
        return table(&others, "a step with the profiler", "operator");
    }
    let operators = table(&others, "a step on the CPU with the profiler, which launches the GPU's work", "operator");
    table(&kernels, "a step on the GPU with the profiler", "kernel") + &operators
}

fn table(costs: &[&Cost], what: &str, header: &str) -> String {
    let total: Duration = costs.iter().map(|cost| cost.self_time).sum();
    let per_step = |time: Duration| time.as_secs_f64() * 1e3 / RECORDED as f64;
    let mut lines = format!(
        "rank 0, {:.1} ms {what}, by self time\n{:>7} {:>10} {:>9}  {header}\n",
        per_step(total),
        "share",
        "ms a step",
        "calls"
    );
    for cost in costs.iter().take(NAMED) {
        let share = 100.0 * cost.self_time.as_secs_f64() / total.as_secs_f64();
        let time = per_step(cost.self_time);
        let calls = cost.calls as f64 / RECORDED as f64;
        let beyond = if cost.kind == CostKind::Range { ", outside of operators" } else { "" };
        // Kernels may have the names of C++ templates, thousands of characters long.
        let name: String = cost.name.chars().take(NAME_LENGTH).collect();
        lines += &format!("{share:>6.1}% {time:>10.2} {calls:>9.1}  {name}{beyond}\n");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_have_a_table_of_their_own() {
        let cost = |name: &str, kind, ms| Cost {
            name: name.into(),
            kind,
            calls: RECORDED,
            self_time: Duration::from_millis(ms * RECORDED),
        };
        let on_cpu = [cost("aten::mm", CostKind::Operator, 3), cost("step", CostKind::Range, 1)];
        let host = "rank 0, 4.0 ms a step with the profiler, by self time\n  share  ms a step     calls  operator\n  75.0%  \
                    \x20    3.00       1.0  aten::mm\n  25.0%       1.00       1.0  step, outside of operators\n";
        assert_eq!(tables(&on_cpu), host);
        let long = "k".repeat(300);
        let both = tables(&[&on_cpu[..], &[cost(&long, CostKind::Kernel, 5)]].concat());
        let lines: Vec<&str> = both.lines().collect();
        assert!(lines[0].starts_with("rank 0, 5.0 ms a step on the GPU ") && lines[1].ends_with("  kernel"), "{both}");
        assert!(lines[2].starts_with(" 100.0%") && lines[2].ends_with("kk") && lines[2].len() < 150, "{both}");
        assert!(lines[3].starts_with("rank 0, 4.0 ms a step on the CPU "), "{both}");
    }
}
