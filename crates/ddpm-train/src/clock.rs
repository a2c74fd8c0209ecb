//! Accounting of training time.

use std::ffi::CStr;
use std::mem;
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
    laps: Laps,
}

/// How the time of a step was spent, in seconds or in what is known about these.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Times<T> {
    /// In total; about the same on all ranks, which wait for each other.
    pub step: T,
    /// Waiting for images.
    pub data: T,
    /// In forward and backward passes.
    pub compute: T,
    /// In exchanges with the other ranks, mostly waiting for them.
    pub wait: T,
}

/// How one rank spent a step, in seconds, from the end of the step before to its own end. Saves, grids and evaluations
/// in between do not count. The time of the passes is NaN if it is not known.
pub type Lap = Times<f64>;

impl<T> Times<T> {
    /// From the parts in the order of the fields.
    pub fn from_array([step, data, compute, wait]: [T; 4]) -> Self {
        Self { step, data, compute, wait }
    }

    /// The parts in the order of the fields.
    pub fn into_array(self) -> [T; 4] {
        [self.step, self.data, self.compute, self.wait]
    }
}

/// The step in progress.
struct Laps {
    began: Instant,
    /// The clock's waits when it began; negative once these have been reset.
    from: Waits,
    last: Option<Lap>,
}

/// Seconds of waiting for data, in communication, and outside of training.
type Waits = [f64; 3];

impl Clock {
    /// A clock that starts now, with all counters at zero.
    pub fn started() -> Self {
        let now = Instant::now();
        Self {
            since: now,
            images: 0,
            data_wait: Duration::ZERO,
            comm_wait: Duration::ZERO,
            checkpoint_stall: Duration::ZERO,
            drawing: Duration::ZERO,
            laps: Laps { began: now, from: Waits::default(), last: None },
        }
    }

    /// The times so far; the clock starts again, but the step in progress goes on.
    pub fn take(&mut self) -> Self {
        let (taken, mut from) = (self.waits(), self.laps.from);
        from.iter_mut().zip(taken).for_each(|(from, taken)| *from -= taken);
        let laps = Laps { from, ..self.laps };
        mem::replace(self, Self { laps, ..Self::started() })
    }

    /// Ends a step, of which `compute` seconds were passes. `unseen` is the time spent in communication that
    /// `comm_wait` does not include.
    pub(crate) fn lap(&mut self, compute: f64, unseen: f64) {
        let (now, waits) = (Instant::now(), self.waits());
        let [data, wait, other] = [0, 1, 2].map(|kind| waits[kind] - self.laps.from[kind]);
        let step = now.duration_since(self.laps.began).as_secs_f64() - other;
        self.laps = Laps { began: now, from: waits, last: Some(Lap { step, data, compute, wait: wait + unseen }) };
    }

    /// The last step that ended; `None` before the first one did.
    pub(crate) fn last_lap(&self) -> Option<Lap> {
        self.laps.last
    }

    /// Training throughput over all ranks, in images per second. Time spent on saving and on drawing samples is
    /// excluded.
    pub fn images_per_s(&self) -> f64 {
        let training = self.since.elapsed().saturating_sub(self.checkpoint_stall + self.drawing);
        self.images as f64 / training.as_secs_f64()
    }

    fn waits(&self) -> Waits {
        [self.data_wait, self.comm_wait, self.checkpoint_stall + self.drawing].map(|wait| wait.as_secs_f64())
    }
}

/// Runs `work`, adds the time it takes to `total`, and marks it in traces as the range `name`.
pub fn timed<T>(name: &'static CStr, total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let done = in_range(name, work);
    *total += started.elapsed();
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lap_counts_what_was_added_since_the_last_one_even_if_the_clock_was_taken() {
        let mut clock = Clock::started();
        let seconds = Duration::from_secs;
        (clock.data_wait, clock.comm_wait) = (seconds(5), seconds(7));
        assert_eq!(clock.last_lap(), None);
        clock.lap(1.0, 0.0);
        clock.data_wait += seconds(2);
        clock.comm_wait += seconds(3);
        let taken = clock.take();
        assert_eq!((taken.data_wait, taken.comm_wait, clock.data_wait), (seconds(7), seconds(10), Duration::ZERO));
        clock.comm_wait += seconds(4);
        assert_eq!(clock.last_lap().map(|lap| lap.data), Some(5.0));
        clock.lap(1.5, 0.5);
        let lap = clock.last_lap().unwrap();
        assert_eq!((lap.data, lap.compute, lap.wait), (2.0, 1.5, 7.5));
        // Saves and grids are not part of a step; this one was far shorter than the save.
        clock.checkpoint_stall += seconds(100);
        clock.lap(0.0, 0.0);
        let lap = clock.last_lap().unwrap();
        assert!(lap.step < 0.0 && lap.step > -101.0 && lap.wait == 0.0, "{lap:?}");
    }
}
