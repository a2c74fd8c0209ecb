//! Accounting of training time.

use std::ffi::CStr;
use std::time::{Duration, Instant};

use tch_ext::in_range;

/// How the time since the last log step was spent.
pub struct Clock {
    since: Instant,
    /// Number of images trained on, over all ranks.
    pub images: u64,
    /// Time spent waiting for images.
    pub data_wait: Duration,
    /// Time spent in communication, including waiting for the other ranks.
    pub comm_wait: Duration,
    /// Time for which saves held up training.
    pub checkpoint_stall: Duration,
    /// Time spent drawing samples, which does not count as training.
    pub drawing: Duration,
}

impl Clock {
    /// A clock that starts now, with all counters at zero.
    pub fn started() -> Self {
        Self {
            since: Instant::now(),
            images: 0,
            data_wait: Duration::ZERO,
            comm_wait: Duration::ZERO,
            checkpoint_stall: Duration::ZERO,
            drawing: Duration::ZERO,
        }
    }

    /// Training throughput over all ranks, in images per second. Time spent on saving and on drawing samples is
    /// excluded.
    pub fn images_per_s(&self) -> f64 {
        let training = self.since.elapsed().saturating_sub(self.checkpoint_stall + self.drawing);
        self.images as f64 / training.as_secs_f64()
    }
}

/// Runs `work`, adds the time it takes to `total`, and marks it in traces as the range `name`.
pub fn timed<T>(name: &'static CStr, total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let done = in_range(name, work);
    *total += started.elapsed();
    done
}
