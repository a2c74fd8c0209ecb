//! The number of parts in flight: bounded, and as many as the link makes use of.

use std::time::Duration;

use proptest::prelude::*;

use crate::pace::{FIRST, Learned, Pace};

const PART: u64 = 8 << 20;
const PATIENCE: Duration = Duration::from_secs(15);

/// A link on which one request gets at most `each` bytes per second, and all together at most `all`.
#[derive(Clone, Copy, Debug)]
struct Link {
    each: f64,
    all: f64,
}

impl Link {
    fn throughput(self, in_flight: usize) -> f64 {
        (self.each * in_flight as f64).min(self.all)
    }

    /// The numbers in flight while this many parts land, one after the other.
    fn transfer(self, mut pace: Pace, parts: usize) -> Vec<usize> {
        let mut at = Duration::ZERO;
        let land = |_| {
            let limit = pace.limit();
            at += Duration::from_secs_f64(PART as f64 / self.throughput(limit));
            pace.landed(PART, at);
            limit
        };
        (0..parts).map(land).collect()
    }
}

#[test]
fn more_parts_are_in_flight_only_where_that_is_faster() {
    let far = Link { each: 25e6, all: 1e9 };
    assert_eq!(far.transfer(Pace::new(16, PATIENCE), 100).last(), Some(&16));
    let shared = Link { each: 25e6, all: 230e6 };
    let settled = shared.transfer(Pace::new(64, PATIENCE), 100);
    assert!(settled[60..].iter().all(|limit| (9..=14).contains(limit)), "{settled:?}");
    let near = Link { each: 1e9, all: 1e9 };
    let tried = near.transfer(Pace::new(16, PATIENCE), 100);
    assert!(tried.iter().all(|limit| [FIRST, 6].contains(limit)), "{tried:?}");
    assert!(tried.iter().filter(|limit| **limit == FIRST).count() > 80, "{tried:?}");
}

#[test]
fn parts_take_turns_on_a_slow_link() {
    // Four parts at once take 84 s each, and a request that takes a minute is given up.
    let slow = Link { each: 4e5, all: 4e5 };
    let limits = slow.transfer(Pace::new(16, PATIENCE), 40);
    assert!(
        limits[..4].iter().all(|limit| *limit == FIRST) && limits[4..].iter().all(|limit| *limit == 1),
        "{limits:?}"
    );
}

#[test]
fn a_transfer_begins_with_the_pace_of_the_last_one() {
    let learned = Learned::new(Pace::new(16, PATIENCE));
    let mut pace = learned.begin();
    // One round each.
    for _ in 0..20 {
        let limit = pace.limit();
        for part in 1..=limit as u32 {
            pace.landed(PART, Duration::from_millis(100) * part / limit as u32);
        }
        learned.keep(pace);
        pace = learned.begin();
    }
    assert_eq!(pace.limit(), 16);
}

proptest! {
    #[test]
    fn there_is_always_one_part_in_flight_and_never_too_many(
        most in 1usize..100,
        landings in proptest::collection::vec((any::<u64>(), 0u64..1 << 40), 0..500),
    ) {
        let mut pace = Pace::new(most, PATIENCE);
        let mut at = Duration::ZERO;
        for (bytes, nanoseconds) in landings {
            prop_assert!((1..=most).contains(&pace.limit()));
            at += Duration::from_nanos(nanoseconds);
            pace.landed(bytes, at);
        }
        prop_assert!((1..=most).contains(&pace.limit()));
    }

    #[test]
    fn most_of_what_a_link_can_carry_is_used(each in 1e6..1e9f64, all in 1e7..1e10f64, most in 1usize..64) {
        let link = Link { each, all };
        let limits = link.transfer(Pace::new(most, Duration::MAX), 1000);
        let used: f64 = limits[500..].iter().map(|limit| link.throughput(*limit)).sum::<f64>() / 500.0;
        prop_assert!(used > 0.6 * link.throughput(most), "{used} of {}", link.throughput(most));
    }
}
