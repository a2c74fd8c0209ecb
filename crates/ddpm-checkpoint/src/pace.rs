//! How many parts of a transfer are in flight at once: as many as make it faster.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Parts in flight before anything has been measured.
pub(crate) const FIRST: usize = 4;
/// The factor by which additional parts must raise the throughput to be kept.
const GAIN: f64 = 1.1;
/// Rounds that pass before additional parts are tried again.
const PAUSE: u32 = 8;

/// The number of parts in flight, judged in rounds of that many parts. A round with half as many again must be faster
/// than the one before, or the number is what it was. If parts take too long, there are fewer at once.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    limit: usize,
    most: usize,
    /// How long a part may take: requests have a time limit, and parts in flight share the link.
    patience: Duration,
    round: Round,
    /// The number before the current one was tried, and its throughput in bytes per second.
    before: Option<(usize, f64)>,
    /// Rounds until more are tried.
    pause: u32,
}

/// What has landed since the current number was set.
#[derive(Clone, Debug, Default)]
struct Round {
    since: Duration,
    parts: usize,
    bytes: u64,
}

impl Pace {
    /// At most `most` parts in flight, at least 1, each of which may take as long as `patience`.
    pub fn new(most: usize, patience: Duration) -> Self {
        Self { limit: FIRST.min(most), most, patience, round: Round::default(), before: None, pause: 0 }
    }

    /// How many parts may be in flight now: 1 to `most`.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// A part of so many bytes has landed, at this time since the transfer began.
    pub fn landed(&mut self, bytes: u64, at: Duration) {
        self.round.parts += 1;
        self.round.bytes = self.round.bytes.saturating_add(bytes);
        if self.round.parts < self.limit {
            return;
        }
        let seconds = at.saturating_sub(self.round.since).as_secs_f64().max(1e-9);
        let throughput = self.round.bytes as f64 / seconds;
        let part = self.round.bytes as f64 / self.round.parts as f64;
        self.judge(throughput);
        let in_time = throughput * self.patience.as_secs_f64() / part;
        if in_time < self.limit as f64 {
            self.limit = (in_time as usize).max(1);
            (self.before, self.pause) = (None, PAUSE);
        }
        self.round = Round { since: at, ..Round::default() };
    }

    fn judge(&mut self, throughput: f64) {
        let more = (self.limit + self.limit.div_ceil(2)).min(self.most);
        match self.before.take() {
            Some((fewer, slower)) if throughput < GAIN * slower => (self.limit, self.pause) = (fewer, PAUSE),
            _ if self.pause > 0 => self.pause -= 1,
            _ if more > self.limit => {
                self.before = Some((self.limit, throughput));
                self.limit = more;
            }
            _ => {}
        }
    }
}

/// The pace of the transfers so far in one direction, with which the next one begins.
#[derive(Debug)]
pub(crate) struct Learned(Mutex<Pace>);

impl Learned {
    pub fn new(pace: Pace) -> Self {
        Self(Mutex::new(pace))
    }

    /// The pace of a transfer that begins now.
    pub fn begin(&self) -> Pace {
        let pace = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Pace { round: Round::default(), ..pace }
    }

    /// Keeps the pace of a transfer that has ended.
    pub fn keep(&self, pace: Pace) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = pace;
    }
}
