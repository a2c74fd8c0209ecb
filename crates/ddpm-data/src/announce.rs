//! Which coming batches have been announced to a source, so that it can fetch their images in time.

use std::collections::VecDeque;

/// The most steps that are announced ahead, however little they have to fetch.
const STEPS: u64 = 64;

/// The batches that were announced and have not been delivered.
#[derive(Debug)]
pub(crate) struct Announced {
    /// The next step to announce.
    next: u64,
    /// How many bytes each of the steps before it requested, as far as they are not delivered.
    ahead: VecDeque<u64>,
    bytes: u64,
}

impl Announced {
    /// Nothing before `start`, and nothing yet.
    pub(crate) fn from(start: u64) -> Self {
        Announced { next: start, ahead: VecDeque::new(), bytes: 0 }
    }

    /// Announces steps while those from `wanted` on have fewer than `horizon` bytes under way. `announce` returns the
    /// bytes that it requests for a step.
    pub(crate) fn extend(&mut self, wanted: u64, horizon: u64, mut announce: impl FnMut(u64) -> u64) {
        let delivered = (self.ahead.len() as u64).saturating_sub(self.next.saturating_sub(wanted));
        self.bytes -= self.ahead.drain(..delivered as usize).sum::<u64>();
        self.next = self.next.max(wanted);
        while self.bytes < horizon && self.next < wanted.saturating_add(STEPS) {
            let bytes = announce(self.next);
            self.ahead.push_back(bytes);
            self.bytes += bytes;
            self.next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_step_is_announced_once_in_order_and_within_the_horizon(
            start in 0u64..1000, jumps in prop::collection::vec(0u64..100, 1..50), cost in 0u64..40,
        ) {
            let mut announced = Announced::from(start);
            let (mut wanted, mut steps) = (start, Vec::new());
            for jump in jumps {
                wanted += jump;
                announced.extend(wanted, 100, |step| {
                    steps.push(step);
                    cost + step % 3
                });
                let ahead: u64 = steps.iter().filter(|step| **step >= wanted).map(|step| cost + step % 3).sum();
                prop_assert_eq!(announced.bytes, ahead);
                prop_assert!(ahead < 100 + cost + 3, "one step more than fits at most");
                prop_assert!(steps.last().is_some_and(|last| *last >= wanted && *last < wanted + STEPS));
            }
            prop_assert!(steps.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
