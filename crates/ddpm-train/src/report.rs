//! The metrics of a log step: means over all samples, and over the samples of each quarter of the timesteps.

use ddpm_diffusion::quarter;

use crate::clock::Clock;
use crate::rank_times::RankSpreads;
use crate::terms::SampleTerms;

/// The metrics that observers receive at a log step.
pub struct LogStep {
    /// Means over the step's global batch.
    pub means: Means,
    /// L2 norm of the averaged gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate of the update.
    pub lr: f64,
    /// How this rank spent the time since the last log step.
    pub clock: Clock,
    /// How the ranks spent a step on average since then; `None` after the first step.
    pub ranks: Option<RankSpreads>,
    /// Images that could not be read and were replaced, over all ranks, since the run was last started or resumed.
    pub corrupt: u64,
    /// Checkpoints that failed or were skipped since the run was last started or resumed.
    pub missed_saves: u64,
}

/// Means over the global batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Means {
    /// The weighted loss, which training minimises.
    pub loss: f64,
    /// Squared error, weighted in the same way; NaN for classifiers.
    pub mse: f64,
    /// The terms of the variational bound, weighted in the same way. Times T, this estimates the bound without its
    /// prior term; NaN for classifiers.
    pub vb: f64,
    /// The contribution of each quarter of `0..T` to `vb`; the four add up to it.
    pub vb_quarters: [f64; 4],
    /// Fraction of samples classified correctly, weighted in the same way; `None` for diffusion models.
    pub accuracy: Option<f64>,
    /// Unweighted loss of the samples whose t lies in each quarter of `0..T`.
    pub loss_quarters: [Option<f64>; 4],
    /// Unweighted accuracy of the same samples.
    pub accuracy_quarters: [Option<f64>; 4],
}

impl Means {
    /// Averages `terms`, whose timesteps were drawn from `0..timesteps`.
    pub fn of(terms: &[SampleTerms], timesteps: usize) -> Self {
        let weighted = |value: fn(&SampleTerms) -> f32| {
            mean(terms.iter().map(|term| term.weight * f64::from(value(term)))).unwrap_or(f64::NAN)
        };
        let of_quarter = |q: usize| terms.iter().filter(move |term| quarter(term.t, timesteps) == q);
        let mean_of_quarter = |value: fn(&SampleTerms) -> f32| {
            [0, 1, 2, 3].map(|q| mean(of_quarter(q).map(|term| f64::from(value(term)))))
        };
        let vb = weighted(|term| term.vb);
        let share = |q| of_quarter(q).map(|term| term.weight * f64::from(term.vb)).sum::<f64>() / terms.len() as f64;
        Self {
            loss: weighted(|term| term.loss),
            mse: weighted(|term| term.mse),
            vb,
            // Without this check, a quarter without samples would contribute 0 even if there is no bound.
            vb_quarters: if vb.is_nan() { [f64::NAN; 4] } else { [0, 1, 2, 3].map(share) },
            accuracy: Some(weighted(|term| term.correct)).filter(|accuracy| !accuracy.is_nan()),
            loss_quarters: mean_of_quarter(|term| term.loss),
            accuracy_quarters: mean_of_quarter(|term| term.correct).map(|a| a.filter(|accuracy| !accuracy.is_nan())),
        }
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u64), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::tests::term;

    #[test]
    fn means_weigh_the_loss_but_not_its_quarters() {
        let terms = [term(0, 2.0, 1.0), term(249, 1.0, 3.0), term(999, 1.0, 8.0)];
        let means = Means::of(&terms, 1000);
        assert_eq!((means.loss, means.mse, means.vb), (13.0 / 3.0, 6.5 / 3.0, 3.25 / 3.0));
        assert_eq!(means.loss_quarters, [Some(2.0), None, None, Some(8.0)]);
        assert_eq!(means.vb_quarters, [1.25 / 3.0, 0.0, 0.0, 2.0 / 3.0]);
    }

    #[test]
    fn accuracy_is_the_share_of_samples_classified_correctly() {
        let classified = |t: usize, right: bool| {
            let correct = f32::from(u8::from(right));
            SampleTerms { mse: f32::NAN, vb: f32::NAN, correct, ..term(t, 1.0, 1.0) }
        };
        let means =
            Means::of(&[classified(0, true), classified(1, false), classified(600, true), classified(700, true)], 1000);
        assert_eq!(means.accuracy, Some(0.75));
        assert_eq!(means.accuracy_quarters, [Some(0.5), None, Some(1.0), None]);
        assert!(means.mse.is_nan() && means.vb_quarters.iter().all(|share| share.is_nan()));
    }
}
