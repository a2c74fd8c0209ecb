//! The per-sample terms of a step: read from the device when needed, and gathered over the ranks.

use ddpm_comm::Collective;
use ddpm_diffusion::Draw;
use ddpm_model::Error;
use tch::{Kind, Tensor};

/// The terms of one sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleTerms {
    /// Its timestep.
    pub t: usize,
    /// The weight of its loss in the mean (1 for uniform timesteps).
    pub weight: f64,
    /// Its loss before that weight.
    pub loss: f32,
    /// Squared error of the prediction; NaN for classifiers.
    pub mse: f32,
    /// Its term of the variational bound, in bits per dimension; NaN for classifiers.
    pub vb: f32,
    /// 1 if a classifier's most likely class is the correct one, else 0; NaN for diffusion models.
    pub correct: f32,
}

/// The terms of this rank's slice, not yet read from the device.
pub struct PendingTerms {
    draws: Vec<Draw>,
    /// Rows loss, mse, vb, correct of each micro-batch, `[4, b]`; NaN where the objective has no such term.
    parts: Vec<Tensor>,
}

impl PendingTerms {
    pub(crate) fn new(draws: Vec<Draw>, parts: Vec<Tensor>) -> Self {
        Self { draws, parts }
    }

    /// Waits for the device and returns the terms in position order.
    pub fn read(self) -> Result<Vec<SampleTerms>, Error> {
        let rows = Tensor::f_cat(&self.parts, 1)?.f_to_kind(Kind::Float)?.f_contiguous()?.f_view(-1)?;
        let rows: Vec<f32> = Vec::try_from(&rows)?;
        let count = self.draws.len();
        let term = |(i, draw): (usize, &Draw)| {
            let [loss, mse, vb, correct] = [0, 1, 2, 3].map(|row| rows[row * count + i]);
            SampleTerms { t: draw.t, weight: draw.weight, loss, mse, vb, correct }
        };
        Ok(self.draws.iter().enumerate().map(term).collect())
    }
}

/// Bytes of one sample's terms on the wire.
const ROW: usize = 32;

/// Gathers the terms of the global batch of each step, in position order, on every rank; the result does not depend
/// on the number of ranks. `ours` holds this rank's terms by step. Every rank must pass the same number of steps,
/// with the same number of samples in each.
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The terms of a sample, whose values differ from each other.
    pub(crate) fn term(t: usize, weight: f64, loss: f32) -> SampleTerms {
        SampleTerms { t, weight, loss, mse: loss / 2.0, vb: loss / 4.0, correct: 1.0 }
    }

    #[test]
    fn rows_survive_the_wire() {
        let steps = vec![vec![term(7, 0.25, -1.5), term(8, 1.0, 2.5)], vec![], vec![term(999, 3.0, 2.0)]];
        let world = ddpm_comm::World::init().unwrap();
        assert_eq!(gather_terms(world.collective().as_ref(), &steps), steps);
    }
}
