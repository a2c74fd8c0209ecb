//! Measuring the links between ranks: latency, bandwidth, and how far the clocks of their machines are apart.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ::mpi::topology::SimpleCommunicator;
use ::mpi::traits::*;
use serde::{Deserialize, Serialize};

use crate::World;

/// Bytes of a message from whose time the bandwidth follows.
const LARGE: usize = 4 << 20;
/// Round trips of a small message: enough for one that nothing disturbs.
const ROUND_TRIPS: Range = Range { least: 5, most: 200, limit: Duration::from_millis(20) };
/// Large messages, after one that allocates what the path needs.
const TRANSFERS: Range = Range { least: 1, most: 8, limit: Duration::from_millis(60) };

/// How often something is repeated: until `limit` has passed, at least and at most so many times.
struct Range {
    least: usize,
    most: usize,
    limit: Duration,
}

/// What follows a message.
const MORE: u8 = 1;
const LAST: u8 = 0;

/// The link between two ranks, of which `from` has the lower number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// The rank that measured.
    pub from: usize,
    /// The other one.
    pub to: usize,
    /// Seconds that a small message takes: half of the fastest round trip.
    pub latency_s: f64,
    /// Bytes per second of a message of 4 MiB, the fastest of a few, while other pairs of ranks measure too.
    pub bytes_per_s: f64,
    /// By how many seconds the clock of `to` is ahead of that of `from`, up to half of the fastest round trip.
    pub skew_s: f64,
}

impl World {
    /// Measures the links of all pairs of ranks, in as many rounds as there are other ranks, each rank with one other
    /// at a time; returns all links on every rank, in the order of ranks. Collective over all ranks.
    ///
    /// A pair takes about a tenth of a second, more if its link is slow.
    pub fn measure_links(&self) -> Vec<Link> {
        let (rank, size) = (self.rank(), self.size());
        let mut ours = Vec::new();
        for round in 0..rounds(size) {
            let Some(peer) = partner(rank, round, size) else { continue };
            let _entered = self.watch.enter(format_args!("the measurement of the link to rank {peer}"));
            if rank < peer {
                ours.push(measure(rank, peer));
            } else {
                answer(peer);
            }
        }
        let ours = serde_json::to_vec(&ours).expect("links are plain numbers");
        let all = self.collective().gather_bytes(&ours);
        let read = |bytes: &Vec<u8>| serde_json::from_slice::<Vec<Link>>(bytes).expect("all ranks run this program");
        let mut links: Vec<Link> = all.iter().flat_map(read).collect();
        links.sort_by_key(|link| (link.from, link.to));
        links
    }
}

/// The number of rounds in which each of `size` ranks meets every other one.
fn rounds(size: usize) -> usize {
    if size < 2 { 0 } else { size + size % 2 - 1 }
}

/// The rank that `rank` meets in a round, as in a round-robin tournament: one rank stays in its place, and the others
/// move around it. With an odd number of ranks, one is left out in each round.
fn partner(rank: usize, round: usize, size: usize) -> Option<usize> {
    let fixed = rounds(size);
    let other = match rank {
        rank if rank == fixed => round,
        rank if rank == round => fixed,
        rank => (2 * round + fixed - rank) % fixed,
    };
    (other < size).then_some(other)
}

/// Measures the link to `peer`, which [`answer`]s.
fn measure(rank: usize, peer: usize) -> Link {
    let world = SimpleCommunicator::world();
    let process = world.process_at_rank(peer as i32);
    let (mut fastest, mut skew) = (f64::INFINITY, 0.0);
    ROUND_TRIPS.repeat(|follows| {
        let (began, sent) = (Instant::now(), wall_clock());
        process.send(&follows);
        let theirs = process.receive::<f64>().0;
        let taken = began.elapsed().as_secs_f64();
        if taken < fastest {
            // As in NTP: the peer answered in the middle of the round trip.
            (fastest, skew) = (taken, theirs - (sent + taken / 2.0));
        }
    });
    let mut message = vec![0u8; LARGE];
    let mut transfer = |follows: u8| {
        message[0] = follows;
        let began = Instant::now();
        process.send(&message[..]);
        process.receive::<f64>();
        began.elapsed().as_secs_f64()
    };
    transfer(MORE);
    let mut shortest = f64::INFINITY;
    TRANSFERS.repeat(|follows| shortest = shortest.min(transfer(follows)));
    Link { from: rank, to: peer, latency_s: fastest / 2.0, bytes_per_s: LARGE as f64 / shortest, skew_s: skew }
}

/// The other half of [`measure`].
fn answer(peer: usize) {
    let world = SimpleCommunicator::world();
    let process = world.process_at_rank(peer as i32);
    loop {
        let follows = process.receive::<u8>().0;
        process.send(&wall_clock());
        if follows == LAST {
            break;
        }
    }
    let mut message = vec![0u8; LARGE];
    loop {
        process.receive_into(&mut message[..]);
        process.send(&wall_clock());
        if message[0] == LAST {
            break;
        }
    }
}

impl Range {
    /// Runs `act`, whose argument says whether another run follows.
    fn repeat(&self, mut act: impl FnMut(u8)) {
        let began = Instant::now();
        for done in 1.. {
            let last = done >= self.most || (done >= self.least && began.elapsed() >= self.limit);
            act(if last { LAST } else { MORE });
            if last {
                break;
            }
        }
    }
}

/// Seconds since 1970, as this machine's clock says.
fn wall_clock() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_pair_of_ranks_meets_once() {
        for size in 1..20 {
            let mut met = BTreeSet::new();
            for round in 0..rounds(size) {
                for rank in 0..size {
                    let Some(peer) = partner(rank, round, size) else { continue };
                    assert!(peer != rank && partner(peer, round, size) == Some(rank), "{size} ranks, round {round}");
                    assert!(peer < rank || met.insert((rank, peer)), "{rank} and {peer} of {size} meet twice");
                }
            }
            assert_eq!(met.len(), size * (size - 1) / 2, "{size} ranks");
        }
    }

    #[test]
    fn repetitions_end_by_number_or_by_time() {
        let calls = |range: Range| {
            let mut all = Vec::new();
            range.repeat(|follows| all.push(follows));
            all
        };
        let hour = Duration::from_secs(3600);
        assert_eq!(calls(Range { least: 1, most: 3, limit: hour }), [MORE, MORE, LAST]);
        assert_eq!(calls(Range { least: 2, most: 9, limit: Duration::ZERO }), [MORE, LAST]);
    }

    #[test]
    fn one_rank_has_no_links() {
        assert!(World::init().unwrap().measure_links().is_empty());
    }
}
