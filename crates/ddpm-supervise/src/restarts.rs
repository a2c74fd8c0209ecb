//! How often a job is started again, and how long each restart is delayed.

use std::time::Duration;

/// The restarts so far, of which only `most` may lie within `window`.
#[derive(Clone, Debug)]
pub(crate) struct Restarts {
    most: usize,
    window: Duration,
    times: Vec<Duration>,
}

impl Restarts {
    /// None so far.
    pub fn new(most: usize, window: Duration) -> Self {
        Self { most, window, times: Vec::new() }
    }

    /// How many more there may be at this time.
    pub fn left(&self, now: Duration) -> usize {
        let recent = self.times.iter().filter(|&&time| now.saturating_sub(time) < self.window).count();
        self.most.saturating_sub(recent)
    }

    /// Records one.
    pub fn record(&mut self, now: Duration) {
        self.times.retain(|&time| now.saturating_sub(time) < self.window);
        self.times.push(now);
    }
}

/// How long a restart is delayed: twice as long after each failure without progress.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The delay after the first failure.
    pub first: Duration,
    /// The longest delay.
    pub most: Duration,
}

impl Backoff {
    /// The delay after `failures` failures in a row without progress, at least 1. `jitter`, from 0 to 1, shortens it by
    /// up to a half, so that jobs that failed together do not all come back together.
    pub(crate) fn pause(&self, failures: u32, jitter: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let whole = self.first.checked_mul(1 << doublings).map_or(self.most, |whole| whole.min(self.most));
        whole.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn old_restarts_do_not_count() {
        let mut restarts = Restarts::new(2, S(60));
        restarts.record(S(10));
        restarts.record(S(40));
        assert_eq!([40, 69, 70, 99, 100].map(|now| restarts.left(S(now))), [0, 0, 1, 1, 2]);
    }

    #[test]
    fn delays_double_up_to_a_limit_and_jitter_halves_them_at_most() {
        let backoff = Backoff { first: S(5), most: S(60) };
        assert_eq!([1, 2, 3, 4, 5, 100].map(|failures| backoff.pause(failures, 0.0)), [5, 10, 20, 40, 60, 60].map(S));
        assert_eq!(backoff.pause(2, 1.0), S(5));
        assert_eq!(backoff.pause(2, 0.5), Duration::from_millis(7500));
    }
}
