//! The rule that calls a rank a straggler, by how long each rank works on its part of each step.
//!
//! All ranks take equally long for a step, because they wait for the slowest. What differs is the time for
//! which a rank works rather than waits. It varies from step to step, so the rule looks at 50 steps, or at as many as
//! take 10 s if that is more, in ten blocks: a rank is slow if its mean over all of them exceeds the ranks' median by
//! the factor, and in each fifth of them by three quarters of that. The first condition ignores noise, and the second a
//! few steps that took very long. The 10 s are for short steps: another program may well take a core for 50 of them.

/// The fewest and the most steps of a block, and the seconds that it takes on the slowest rank, unless it has the most.
const FEWEST: usize = 5;
const MOST: usize = 1000;
const BLOCK_S: f64 = 1.0;
/// Blocks that are looked at.
const BLOCKS: usize = 10;
/// Neighbouring blocks in each of which a straggler is slow.
const PART: usize = 2;
/// The share of the factor's excess over 1 that a straggler has in each part, and below which it has recovered.
const IN_PARTS: f64 = 0.75;
const AGAIN: f64 = 0.5;
/// A step counts for at most this many times the median of its rank's block: so much for the rank that is judged, and
/// less for those that it is compared with, so that a pause of one rank does not hide another's slowness.
const JUDGED: f64 = 4.0;
const COMPARED: f64 = 2.0;

/// A rank that becomes a straggler, or ceases to be one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// Over the last `steps` steps it worked `times` times as long as the median of the ranks.
    Slow {
        /// The rank.
        rank: usize,
        /// The steps that were looked at, at least 50.
        steps: usize,
        /// How many times as long.
        times: f64,
    },
    /// It is about as fast as the others again.
    Recovered {
        /// The rank.
        rank: usize,
    },
}

/// What the ranks did in the last steps, and which of them are stragglers.
pub struct Stragglers {
    factor: f64,
    /// The steps of the block in progress: the seconds of each rank.
    steps: Vec<Vec<f64>>,
    /// The sum of these steps for each rank.
    worked: Vec<f64>,
    /// The last blocks, oldest first.
    blocks: Vec<Block>,
    slow: Vec<bool>,
}

/// The seconds of each rank in a block, with a limit on what one step counts.
struct Block {
    steps: usize,
    judged: Vec<f64>,
    compared: Vec<f64>,
}

impl Stragglers {
    /// For `ranks` ranks, of which one is slow if it takes more than `factor` times as long as the median.
    pub fn new(factor: f64, ranks: usize) -> Self {
        Self { factor, steps: Vec::new(), worked: vec![0.0; ranks], blocks: Vec::new(), slow: vec![false; ranks] }
    }

    /// Adds a step, for which each rank worked so many seconds. A change is returned once: a straggler is not named
    /// again before it has recovered. A number that is not finite keeps its rank from being named for as long as it is
    /// looked at.
    pub fn observe(&mut self, seconds: Vec<f64>) -> Vec<Change> {
        self.worked.iter_mut().zip(&seconds).for_each(|(worked, seconds)| *worked += seconds);
        self.steps.push(seconds);
        let slowest = self.worked.iter().copied().fold(0.0, f64::max);
        if self.steps.len() < FEWEST || (slowest < BLOCK_S && self.steps.len() < MOST) {
            return Vec::new();
        }
        if self.blocks.len() == BLOCKS {
            self.blocks.remove(0);
        }
        self.blocks.push(Block::of(&self.steps, self.slow.len()));
        self.steps.clear();
        self.worked.fill(0.0);
        if self.blocks.len() < BLOCKS {
            return Vec::new();
        }
        let steps = self.blocks.iter().map(|block| block.steps).sum();
        let whole = Comparison::of(&self.blocks);
        let parts: Vec<Comparison> = self.blocks.chunks(PART).map(Comparison::of).collect();
        let share = |share: f64| 1.0 + share * (self.factor - 1.0);
        let (in_parts, again) = (share(IN_PARTS), share(AGAIN));
        let mut changes = Vec::new();
        for (rank, slow) in self.slow.iter_mut().enumerate() {
            if !*slow && whole.exceeds(rank, self.factor) && parts.iter().all(|part| part.exceeds(rank, in_parts)) {
                *slow = true;
                changes.push(Change::Slow { rank, steps, times: whole.times(rank) });
            } else if *slow && !whole.exceeds(rank, again) {
                *slow = false;
                changes.push(Change::Recovered { rank });
            }
        }
        changes
    }
}

impl Block {
    fn of(steps: &[Vec<f64>], ranks: usize) -> Self {
        let sum = |limit: f64| -> Vec<f64> {
            let of_rank = |rank: usize| -> f64 {
                let seconds = || steps.iter().map(move |step| step[rank]);
                let most = limit * lower_median(seconds().collect());
                // Unlike `min`, this keeps what is not a number.
                seconds().map(|seconds| if seconds > most { most } else { seconds }).sum()
            };
            (0..ranks).map(of_rank).collect()
        };
        Self { steps: steps.len(), judged: sum(JUDGED), compared: sum(COMPARED) }
    }
}

/// The seconds of each rank over several blocks.
struct Comparison {
    judged: Vec<f64>,
    compared: Vec<f64>,
    /// The median of the latter.
    median: f64,
}

impl Comparison {
    fn of(blocks: &[Block]) -> Self {
        let ranks = blocks.first().map_or(0, |block| block.judged.len());
        let sum = |seconds: fn(&Block) -> &Vec<f64>| -> Vec<f64> {
            (0..ranks).map(|rank| blocks.iter().map(|block| seconds(block)[rank]).sum()).collect()
        };
        let compared = sum(|block| &block.compared);
        Self { judged: sum(|block| &block.judged), median: lower_median(compared.clone()), compared }
    }

    fn times(&self, rank: usize) -> f64 {
        self.judged[rank] / self.median
    }

    /// Whether the rank takes more than `factor` times as long as the median, and is not the median itself.
    fn exceeds(&self, rank: usize, factor: f64) -> bool {
        let times = self.times(rank);
        self.median > 0.0 && self.compared[rank] > self.median && times > factor && times.is_finite()
    }
}

/// The median; the lower of the two middle values, so that of two ranks it is the faster one's. What is not a number
/// counts as the largest.
fn lower_median(mut values: Vec<f64>) -> f64 {
    match values.len() {
        0 => f64::NAN,
        len => *values.select_nth_unstable_by((len - 1) / 2, f64::total_cmp).1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FACTOR: f64 = 1.2;
    /// Seconds of a step that nothing disturbs: long enough for 50 steps to suffice.
    const STEP: f64 = 0.25;

    /// Random numbers, the same in each run of the tests.
    struct Random(u64);

    impl Random {
        /// From 0 to 1.
        fn uniform(&mut self) -> f64 {
            // SplitMix64.
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
        }

        fn normal(&mut self) -> f64 {
            let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
            radius * (std::f64::consts::TAU * self.uniform()).cos()
        }

        /// The seconds of a step on a rank that nothing disturbs: they vary by `noise`.
        fn even_step(&mut self, noise: f64) -> f64 {
            STEP * (noise * self.normal()).exp()
        }

        /// The same, but one step in 200 takes five times as long.
        fn step(&mut self, noise: f64) -> f64 {
            let pause = if self.uniform() < 0.005 { 5.0 } else { 1.0 };
            pause * self.even_step(noise)
        }
    }

    /// A rank that is stopped for the first part of each period; both in seconds.
    struct DutyCycle {
        stopped: f64,
        period: f64,
        now: f64,
    }

    impl DutyCycle {
        /// How long the rank takes for `work` seconds of work.
        fn takes(&mut self, mut work: f64) -> f64 {
            let began = self.now;
            while work > 0.0 {
                let into = self.now % self.period;
                if into < self.stopped {
                    // A bit beyond the end, which rounding may place in the stop again.
                    self.now += self.stopped - into + 1e-9;
                    continue;
                }
                let until = self.period - into + 1e-9;
                self.now += work.min(until);
                work -= until;
            }
            self.now - began
        }
    }

    /// Feeds steps until a rank is named; returns the number of steps, and the rank.
    fn named(rule: &mut Stragglers, steps: usize, mut step: impl FnMut() -> Vec<f64>) -> Option<(usize, usize)> {
        (1..=steps).find_map(|number| match rule.observe(step())[..] {
            [Change::Slow { rank, .. }, ..] => Some((number, rank)),
            _ => None,
        })
    }

    #[test]
    fn a_rank_slowed_by_30_percent_is_named_within_60_steps() {
        for (ranks, period) in [(2, 0.25), (4, 0.05), (8, 2.5)] {
            for seed in 0..20 {
                let (mut random, mut rule) = (Random(seed), Stragglers::new(FACTOR, ranks));
                // Not always at the first step of a block.
                for _ in 0..100 + seed % 5 {
                    assert!(rule.observe((0..ranks).map(|_| random.step(0.05)).collect()).is_empty());
                }
                // Stopped for 30 % of the time.
                let mut slowed = DutyCycle { stopped: 0.3 * period, period, now: 0.0 };
                let step = || {
                    let mut seconds: Vec<f64> = (0..ranks).map(|_| random.step(0.05)).collect();
                    seconds[1] = slowed.takes(seconds[1]);
                    seconds
                };
                let found = named(&mut rule, 60, step);
                assert!(matches!(found, Some((30.., 1))), "{ranks} ranks, period {period}, seed {seed}: {found:?}");
            }
        }
    }

    #[test]
    fn a_rank_that_takes_1_3_times_as_long_is_named_within_60_steps() {
        for (ranks, seed) in [2, 3, 8].into_iter().flat_map(|ranks| (0..20).map(move |seed| (ranks, seed))) {
            let (mut random, mut rule) = (Random(seed), Stragglers::new(FACTOR, ranks));
            let step = || {
                let mut seconds: Vec<f64> = (0..ranks).map(|_| random.even_step(0.05)).collect();
                seconds[ranks - 1] *= 1.3;
                seconds
            };
            let found = named(&mut rule, 60, step);
            assert!(found.is_some_and(|(_, rank)| rank == ranks - 1), "{ranks} ranks, seed {seed}: {found:?}");
        }
    }

    #[test]
    fn in_2000_undisturbed_steps_no_rank_is_named() {
        for ranks in [1, 2, 3, 8] {
            for (noise, seed) in [0.02, 0.1, 0.2].into_iter().flat_map(|noise| (0..5).map(move |seed| (noise, seed))) {
                let (mut random, mut rule) = (Random(seed), Stragglers::new(FACTOR, ranks));
                let found = named(&mut rule, 2000, || (0..ranks).map(|_| random.step(noise)).collect());
                assert_eq!(found, None, "{ranks} ranks, noise {noise}, seed {seed}");
            }
        }
    }

    #[test]
    fn short_steps_are_looked_at_for_10_seconds() {
        for (step_s, least) in [(0.01, 1000), (0.04, 250), (0.2, 50), (2.0, 50)] {
            let mut rule = Stragglers::new(FACTOR, 2);
            let (number, rank) = named(&mut rule, 2000, || vec![step_s / 1.3, step_s]).unwrap();
            assert!(rank == 1 && (least..=least + 10).contains(&number), "steps of {step_s} s: {number}");
        }
    }

    #[test]
    fn a_pause_is_not_slowness() {
        let mut rule = Stragglers::new(FACTOR, 2);
        let mut number = 0;
        let step = || {
            number += 1;
            // Twenty steps at ten times the usual, such as while a disk is checked.
            vec![STEP, if (60..80).contains(&number) { 10.0 * STEP } else { STEP }]
        };
        assert_eq!(named(&mut rule, 500, step), None);
    }

    #[test]
    fn a_straggler_is_named_once_until_it_has_recovered() {
        let mut rule = Stragglers::new(FACTOR, 3);
        let changes: Vec<Change> = (0..600)
            .flat_map(|step| rule.observe(vec![STEP, STEP, if step / 150 % 2 == 0 { 2.0 * STEP } else { STEP }]))
            .collect();
        let slow = Change::Slow { rank: 2, steps: 50, times: 2.0 };
        let recovered = Change::Recovered { rank: 2 };
        assert_eq!(changes.len(), 4, "{changes:?}");
        assert_eq!((changes[0], changes[1], changes[3]), (slow, recovered, recovered));
        assert!(matches!(changes[2], Change::Slow { rank: 2, .. }), "{changes:?}");
    }

    #[test]
    fn numbers_that_are_not_finite_name_nobody() {
        for odd in [f64::NAN, f64::INFINITY] {
            let mut rule = Stragglers::new(FACTOR, 2);
            assert_eq!(named(&mut rule, 200, || vec![odd, odd]), None);
            assert_eq!(named(&mut rule, 200, || vec![STEP, odd]), None);
            assert_eq!(named(&mut rule, 200, || vec![0.0, 0.0]), None);
        }
    }

    proptest! {
        #[test]
        fn ranks_of_equal_speed_are_not_named(
            steps in prop::collection::vec(1e-4..1e3f64, 50..300),
            ranks in 1..6usize,
        ) {
            let (mut rule, mut seconds) = (Stragglers::new(FACTOR, ranks), steps.iter());
            prop_assert_eq!(named(&mut rule, steps.len(), || vec![*seconds.next().unwrap(); ranks]), None);
        }

        #[test]
        fn only_ranks_above_the_median_are_named(
            speeds in prop::collection::vec(0.1..10.0f64, 2..9),
            seed in 0..1000u64,
        ) {
            let (mut random, mut rule) = (Random(seed), Stragglers::new(FACTOR, speeds.len()));
            let median = lower_median(speeds.clone());
            for _ in 0..120 {
                let seconds = speeds.iter().map(|speed| speed * (0.02 * random.normal()).exp()).collect();
                for change in rule.observe(seconds) {
                    let Change::Slow { rank, times, .. } = change else { continue };
                    prop_assert!(speeds[rank] > 1.1 * median, "rank {} of {:?}", rank, speeds);
                    prop_assert!((times / (speeds[rank] / median) - 1.0).abs() < 0.1, "{} of {:?}", times, speeds);
                }
            }
        }

        #[test]
        fn how_long_steps_take_does_not_matter(scale in 1.0..1e3f64, seed in 0..1000u64) {
            let [mut here, mut there] = [(); 2].map(|()| Stragglers::new(FACTOR, 3));
            let mut random = Random(seed);
            for _ in 0..100 {
                let seconds: Vec<f64> = [1.0, 1.0, 1.5].iter().map(|times| times * random.step(0.1)).collect();
                let scaled = seconds.iter().map(|seconds| seconds * scale).collect();
                prop_assert_eq!(here.observe(seconds).len(), there.observe(scaled).len());
            }
        }
    }
}
