//! The figures of a log step: every sample's terms, in position order, on every rank.

use ddpm_comm::Collective;
use ddpm_diffusion::quarter;

use super::step::SampleTerms;

/// Bytes of one sample's terms on the wire.
const ROW: usize = 32;

/// The terms of the whole global batch of each step, in position order, on every rank: the same for any number of ranks.
/// `ours` are this rank's, step by step; every rank has as many steps, and as many samples in each.
pub fn gather_terms(comm: &dyn Collective, ours: &[Vec<SampleTerms>]) -> Vec<Vec<SampleTerms>> {
    let mut bytes = Vec::with_capacity(ours.iter().map(Vec::len).sum::<usize>() * ROW);
    for term in ours.iter().flatten() {
        bytes.extend((term.t as u64).to_le_bytes());
        bytes.extend(term.weight.to_le_bytes());
        for value in [term.loss, term.mse, term.vb, term.correct] {
            bytes.extend(value.to_le_bytes());
        }
    }
    let all = comm.gather_bytes(&bytes);
    let mut ranks: Vec<_> = all.iter().map(|rank| rank.as_chunks::<ROW>().0.iter().map(read_row)).collect();
    ours.iter().map(|step| ranks.iter_mut().flat_map(|rank| rank.by_ref().take(step.len())).collect()).collect()
}

fn read_row(row: &[u8; ROW]) -> SampleTerms {
    let [t, weight] = [0, 8].map(|at| <[u8; 8]>::try_from(&row[at..at + 8]).expect("8 bytes"));
    let [loss, mse, vb, correct] =
        [16, 20, 24, 28].map(|at| f32::from_le_bytes(row[at..at + 4].try_into().expect("4 bytes")));
    SampleTerms { t: u64::from_le_bytes(t) as usize, weight: f64::from_le_bytes(weight), loss, mse, vb, correct }
}

/// Means over the global batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Means {
    /// The weighted loss: what is descended.
    pub loss: f64,
    /// Squared error, weighted alike; not a number of a classifier.
    pub mse: f64,
    /// The bound's terms, weighted alike: times T, an estimate of the bound without its prior term. Likewise.
    pub vb: f64,
    /// Each quarter of `0..T`'s share in `vb`; the four add up to it.
    pub vb_quarters: [f64; 4],
    /// Share of samples classified rightly, weighted alike, of a classifier.
    pub accuracy: Option<f64>,
    /// Unweighted loss of the samples whose t lies in each quarter of `0..T`.
    pub loss_quarters: [Option<f64>; 4],
    /// The same of the accuracy.
    pub accuracy_quarters: [Option<f64>; 4],
}

impl Means {
    /// Averages `terms`, drawn from `0..timesteps`.
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
            // A quarter without samples would have a share of 0 even where there is no bound.
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

    fn term(t: usize, weight: f64, loss: f32) -> SampleTerms {
        SampleTerms { t, weight, loss, mse: loss / 2.0, vb: loss / 4.0, correct: 1.0 }
    }

    #[test]
    fn means_weigh_the_loss_but_not_its_quarters() {
        let terms = [term(0, 2.0, 1.0), term(249, 1.0, 3.0), term(999, 1.0, 8.0)];
        let means = Means::of(&terms, 1000);
        assert_eq!((means.loss, means.mse, means.vb), (13.0 / 3.0, 6.5 / 3.0, 3.25 / 3.0));
        assert_eq!(means.loss_quarters, [Some(2.0), None, None, Some(8.0)]);
        assert_eq!(means.vb_quarters, [1.25 / 3.0, 0.0, 0.0, 2.0 / 3.0]);
    }

    #[test]
    fn accuracy_is_the_share_of_what_was_told_rightly() {
        let told = |t: usize, right: bool| {
            let correct = f32::from(u8::from(right));
            SampleTerms { mse: f32::NAN, vb: f32::NAN, correct, ..term(t, 1.0, 1.0) }
        };
        let means = Means::of(&[told(0, true), told(1, false), told(600, true), told(700, true)], 1000);
        assert_eq!(means.accuracy, Some(0.75));
        assert_eq!(means.accuracy_quarters, [Some(0.5), None, Some(1.0), None]);
        assert!(means.mse.is_nan() && means.vb_quarters.iter().all(|share| share.is_nan()));
    }

    #[test]
    fn rows_survive_the_wire() {
        let steps = vec![vec![term(7, 0.25, -1.5), term(8, 1.0, 2.5)], vec![], vec![term(999, 3.0, 2.0)]];
        let world = ddpm_comm::World::init().unwrap();
        assert_eq!(gather_terms(world.collective().as_ref(), &steps), steps);
    }
}
