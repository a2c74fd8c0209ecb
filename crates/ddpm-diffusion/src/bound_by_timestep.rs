//! The bound's terms averaged over training, timestep by timestep: a smoother estimate of the bound.

use serde::{Deserialize, Serialize};

use crate::DiffusionError;
use crate::timesteps::check_timesteps;

/// The share of a new term in an average that has seen some. Most of the smoothing comes from the sum over t; a smaller
/// share would keep the start of a training, when terms are thousands of times larger, for all of a short one.
const SHARE: f64 = 0.3;

/// An exponential average of the bound's term at each timestep, and what they sum to.
///
/// A single step's estimate of the bound, T · mean(weight · vb), jumps by its own size from step to step, since terms
/// differ by orders of magnitude between timesteps. Averaged per t before they are summed, they do not.
/// The averages are the same on every rank when terms are gathered and recorded in position order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BoundByTimestep {
    /// The average at each t; none before the first term.
    averages: Vec<Option<f64>>,
    /// Number of terms seen at each t, up to where it still decides the next one's share.
    seen: Vec<u8>,
}

impl BoundByTimestep {
    /// No term seen yet, for T timesteps.
    pub fn new(timesteps: usize) -> Self {
        Self { averages: vec![None; timesteps], seen: vec![0; timesteps] }
    }

    /// T.
    pub fn timesteps(&self) -> usize {
        self.averages.len()
    }

    /// Records (t, vb) pairs in position order; vb is in bits per dimension, without importance weights. The first terms
    /// at a t count equally, later ones with a share of three tenths. Terms that are not finite are left out, since one
    /// would stay in the average.
    ///
    /// # Errors
    /// A t that the process does not have; nothing is recorded then.
    pub fn update(&mut self, terms: &[(usize, f32)]) -> Result<(), DiffusionError> {
        check_timesteps(terms, self.timesteps())?;
        for &(t, vb) in terms.iter().filter(|(_, vb)| vb.is_finite()) {
            let share = (1.0 / (f64::from(self.seen[t]) + 1.0)).max(SHARE);
            let average = self.averages[t].unwrap_or(0.0);
            self.averages[t] = Some(average + share * (f64::from(vb) - average));
            self.seen[t] = self.seen[t].saturating_add(1);
        }
        Ok(())
    }

    /// The average at each t, in bits per dimension; none where no term was seen yet.
    pub fn averages(&self) -> &[Option<f64>] {
        &self.averages
    }

    /// Their sum over all t: the bound without its prior term, in bits per dimension. None before each t was seen.
    pub fn total(&self) -> Option<f64> {
        self.averages.iter().copied().sum()
    }

    /// The sum over each quarter of `0..T`; the four add up to [`total`](Self::total).
    pub fn quarters(&self) -> [Option<f64>; 4] {
        let timesteps = self.timesteps();
        [0, 1, 2, 3].map(|q| {
            let of_quarter = |(t, average): (usize, &Option<f64>)| (quarter(t, timesteps) == q).then_some(*average);
            self.averages.iter().enumerate().filter_map(of_quarter).sum()
        })
    }
}

/// Which quarter of `0..timesteps` t lies in, from 0.
pub fn quarter(t: usize, timesteps: usize) -> usize {
    t * 4 / timesteps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_start_as_means_and_continue_exponentially() {
        let mut bound = BoundByTimestep::new(4);
        bound.update(&[(0, 3.0), (0, 5.0), (2, 1.0), (2, f32::NAN)]).unwrap();
        assert_eq!(bound.averages(), [Some(4.0), None, Some(1.0), None]);
        bound.update(&[(3, 0.0); 40]).unwrap();
        bound.update(&[(3, 1.0)]).unwrap();
        assert!((bound.averages()[3].unwrap() - SHARE).abs() < 1e-12);
    }

    #[test]
    fn there_is_no_sum_before_every_timestep_was_seen() {
        let mut bound = BoundByTimestep::new(6);
        bound.update(&[(0, 1.0), (1, 2.0), (2, 4.0), (3, 8.0), (4, 16.0)]).unwrap();
        assert_eq!(bound.total(), None);
        assert_eq!(bound.quarters(), [Some(3.0), Some(4.0), Some(24.0), None]);
        bound.update(&[(5, 32.0)]).unwrap();
        assert_eq!((bound.total(), bound.quarters()[3]), (Some(63.0), Some(32.0)));
    }

    #[test]
    fn an_unknown_timestep_is_refused_and_nothing_is_recorded() {
        let mut bound = BoundByTimestep::new(2);
        assert!(bound.update(&[(0, 1.0), (2, 1.0)]).is_err());
        assert_eq!(bound, BoundByTimestep::new(2));
    }
}
