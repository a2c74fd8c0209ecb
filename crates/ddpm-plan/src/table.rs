//! The prediction as rows of text.

use crate::allreduce::Algorithm;
use crate::plan::Plan;

impl Plan {
    /// A row for each part of the prediction: its name, in the first [`INDENT`](Self::INDENT) columns, and what is
    /// predicted.
    pub fn rows(&self) -> String {
        let speed = match self.assumed_mfu {
            Some(mfu) => format!("an assumed {:.0}% of its peak", 100.0 * mfu),
            None => "as given".into(),
        };
        let memory = match self.gpu_memory_mb {
            Some(all) => format!("{:.0} MB of {all:.0} MB on each GPU, without CUDA's own", self.memory_mb),
            None => format!("{:.0} MB on each rank", self.memory_mb),
        };
        let way = match self.algorithm {
            Algorithm::None => "not needed",
            Algorithm::Ring => "in a ring",
            Algorithm::Tree => "in a double tree",
            Algorithm::Binomial => "in MPI's binomial tree",
        };
        // A core of a processor makes a fraction of one.
        let decimals = if self.tflops < 10.0 { 4 } else { 0 };
        let rows = [
            ("ranks", format!("{} on {}, {} node(s)", self.gpus, self.gpu, self.nodes)),
            ("batch", format!("{} images, {} on each rank", self.global_batch, self.images_per_gpu)),
            (
                "model",
                format!("{} parameters, {:.1} GFLOP to train on an image", self.parameters, self.gflops_per_image),
            ),
            ("memory", memory),
            ("step", format!("{}, {:.0} images/s", time(self.step_s), self.images_per_s)),
            ("  compute", format!("{} at {:.decimals$} TFLOP/s, {speed}", time(self.compute_s), self.tflops)),
            ("  stragglers", time(self.straggler_s)),
            ("  all-reduce", format!("{} of {}, {way}", time(self.exposed_s), time(self.allreduce_s))),
            ("  exchanges", format!("{}, heartbeat and norms", time(self.exchanges_s))),
            ("  update", time(self.update_s)),
            ("efficiency", format!("{:.1}% of a step computes", 100.0 * self.efficiency)),
            ("epoch", format!("{}, {:.1} steps", time(self.epoch_s), self.steps_per_epoch)),
            (
                "checkpoint",
                format!(
                    "{:.0} MB, written in {}, of which training waits {}",
                    self.checkpoint_mb,
                    time(self.save_s),
                    time(self.stall_s)
                ),
            ),
            ("failures", format!("one in {}, {} until the run trains again", time(self.mtbf_s), time(self.restart_s))),
            ("saving", saved(self.save_every, self.step_s, self.goodput) + ", as configured"),
            ("best saving", saved(self.best_save_every, self.step_s, self.best_goodput)),
            ("run", format!("{}, {} steps, with saves and failures", time(self.run_s), self.steps)),
        ];
        let rows = rows.map(|(name, text)| format!("{name:<width$}{text}", width = Self::INDENT));
        rows.join("\n")
    }

    /// Where the second column of [`rows`](Self::rows) begins.
    pub const INDENT: usize = 14;
}

fn saved(every: u64, step_s: f64, goodput: f64) -> String {
    let interval = time(every as f64 * step_s);
    format!("every {every} steps, {interval}: {:.2}% of the time is not lost", 100.0 * goodput)
}

/// A time with three digits, in a unit in which it is not below one.
fn time(seconds: f64) -> String {
    const UNITS: [(f64, &str); 6] =
        [(86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "us")];
    let (unit, name) = UNITS.into_iter().find(|(unit, _)| seconds >= *unit).unwrap_or((1e-6, "us"));
    let number = seconds / unit;
    let digits = [100.0, 10.0].into_iter().filter(|least| number < *least).count();
    format!("{number:.digits$} {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_suits_them() {
        for (seconds, text) in [
            (0.0, "0.00 us"),
            (1.5e-6, "1.50 us"),
            (0.0123, "12.3 ms"),
            (0.25, "250 ms"),
            (59.0, "59.0 s"),
            (90.0, "1.50 min"),
            (7200.0, "2.00 h"),
            (864_000.0, "10.0 d"),
        ] {
            assert_eq!(time(seconds), text);
        }
    }
}
