//! How all ranks spend their steps: figures for the metrics, and which ranks are stragglers.

use crate::clock::{Lap, Times};
use crate::straggler::{Change, Stragglers};

/// The steps of all ranks since the last log step, and which ranks are stragglers by them.
pub struct RankTimes {
    /// The sums of each rank's times.
    sums: Vec<[f64; 4]>,
    steps: usize,
    stragglers: Stragglers,
}

/// How the ranks spent a step on average: each rank's mean over the steps since the last log step, compared.
pub type RankSpreads = Times<Spread>;

/// A figure that each rank has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The middle one, or the mean of the two middle ones.
    pub median: f64,
    /// The greatest.
    pub max: f64,
    /// The rank that has it, the lowest if there are several.
    pub max_rank: usize,
}

impl RankTimes {
    /// For `ranks` ranks; a straggler takes `factor` times as long as the median.
    pub fn new(ranks: usize, factor: f64) -> Self {
        Self { sums: vec![[0.0; 4]; ranks], steps: 0, stragglers: Stragglers::new(factor, ranks) }
    }

    /// Adds a step of all ranks, in the order of ranks; an empty one does not count. Returns which ranks have become
    /// stragglers, and which are none any more.
    pub fn record(&mut self, laps: &[Lap]) -> Vec<Change> {
        if laps.is_empty() {
            return Vec::new();
        }
        self.steps += 1;
        for (sum, lap) in self.sums.iter_mut().zip(laps) {
            sum.iter_mut().zip(lap.into_array()).for_each(|(sum, time)| *sum += time);
        }
        // A rank holds up the others by reading its images slowly, too.
        self.stragglers.observe(laps.iter().map(|lap| lap.data + lap.compute).collect())
    }

    /// The figures since the last call; `None` if no step was added since.
    pub fn take(&mut self) -> Option<RankSpreads> {
        let ranks = self.sums.len();
        let sums = std::mem::replace(&mut self.sums, vec![[0.0; 4]; ranks]);
        let steps = std::mem::take(&mut self.steps);
        let spread = |part: usize| {
            let means: Vec<f64> = sums.iter().map(|sum| sum[part] / steps as f64).collect();
            Spread::of(&means)
        };
        (steps > 0).then(|| RankSpreads::from_array([0, 1, 2, 3].map(spread)))
    }
}

impl Spread {
    /// The spread of one value per rank, of which there is at least one.
    fn of(values: &[f64]) -> Self {
        let mut ranks: Vec<usize> = (0..values.len()).collect();
        // Among equals the lowest rank comes last.
        ranks.sort_by(|a, b| values[*a].total_cmp(&values[*b]).then(b.cmp(a)));
        let [low, high] = [(values.len() - 1) / 2, values.len() / 2].map(|middle| values[ranks[middle]]);
        let max_rank = ranks[values.len() - 1];
        Self { min: values[ranks[0]], median: (low + high) / 2.0, max: values[max_rank], max_rank }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_names_the_rank_of_the_greatest_value() {
        assert_eq!(Spread::of(&[3.0, 1.0, 4.0]), Spread { min: 1.0, median: 3.0, max: 4.0, max_rank: 2 });
        assert_eq!(Spread::of(&[4.0, 1.0, 4.0, 2.0]), Spread { min: 1.0, median: 3.0, max: 4.0, max_rank: 0 });
        assert_eq!(Spread::of(&[2.0]), Spread { min: 2.0, median: 2.0, max: 2.0, max_rank: 0 });
    }

    #[test]
    fn figures_are_means_over_the_steps_since_the_last_ones() {
        let lap = |compute: f64, wait: f64| Lap { step: compute + wait, data: 0.0, compute, wait };
        let mut times = RankTimes::new(2, 1.2);
        assert_eq!(times.take(), None);
        assert!(times.record(&[]).is_empty() && times.take().is_none());
        times.record(&[lap(1.0, 3.0), lap(4.0, 0.0)]);
        times.record(&[lap(3.0, 1.0), lap(2.0, 2.0)]);
        let spreads = times.take().unwrap();
        assert_eq!(spreads.step, Spread { min: 4.0, median: 4.0, max: 4.0, max_rank: 0 });
        assert_eq!(spreads.compute, Spread { min: 2.0, median: 2.5, max: 3.0, max_rank: 1 });
        assert_eq!(spreads.wait, Spread { min: 1.0, median: 1.5, max: 2.0, max_rank: 0 });
        assert_eq!(times.take(), None);
    }

    #[test]
    fn a_rank_is_a_straggler_by_what_it_does_itself() {
        for (data, compute) in [(0.0, 3.0), (2.0, 1.0)] {
            let mut times = RankTimes::new(2, 1.2);
            let fast = Lap { step: 3.0, data: 0.0, compute: 1.0, wait: 2.0 };
            let slow = Lap { step: 3.0, data, compute, wait: 0.0 };
            let changes: Vec<Change> = (0..50).flat_map(|_| times.record(&[fast, slow])).collect();
            assert_eq!(changes, [Change::Slow { rank: 1, steps: 50, times: 3.0 }]);
        }
    }
}
