//! Where a training's time goes.

use std::ffi::CStr;
use std::time::{Duration, Instant};

use tch_ext::in_range;

/// Where the time went since the last log step.
pub struct Clock {
    since: Instant,
    /// Images trained on.
    pub images: u64,
    /// Waiting for images.
    pub data_wait: Duration,
    /// Waiting for the other ranks, and for what is exchanged with them.
    pub comm_wait: Duration,
    /// Held up by saves.
    pub checkpoint_stall: Duration,
    /// Drawing samples, which is not training.
    pub drawing: Duration,
}

impl Clock {
    /// Everything at zero, now.
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

    /// Over all ranks, while training: neither saving nor drawing samples counts.
    pub fn images_per_s(&self) -> f64 {
        let training = self.since.elapsed().saturating_sub(self.checkpoint_stall + self.drawing);
        self.images as f64 / training.as_secs_f64()
    }
}

/// Adds the time that `work` takes to `total`, and shows it in a trace by `name`.
pub fn timed<T>(name: &'static CStr, total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let done = in_range(name, work);
    *total += started.elapsed();
    done
}
