//! Sums of the bound's terms, accumulated over batches, strata and processes, and the results computed from them.

use ddpm_diffusion::{BoundTerms, quarter};
use tch::{Kind, TchError, Tensor};

use crate::{EvalError, Strata};

/// The sums of the bound's terms, by timestep and by image. Processes that share the work combine theirs with
/// [`BoundSums::merge`].
#[derive(Clone, Debug, PartialEq)]
pub struct BoundSums {
    /// The number of timesteps that an evaluation at t represents: the length of its stratum.
    weights: Vec<f64>,
    /// Images evaluated at each t.
    counts: Vec<f64>,
    /// Sums over images at each t, not weighted.
    vb: Vec<f64>,
    mse: Vec<f64>,
    xstart_mse: Vec<f64>,
    loss: Vec<f64>,
    /// The prior's term of each image.
    prior: Vec<f64>,
    /// The sum of each image's other terms, weighted.
    terms: Vec<f64>,
}

/// The bound and its parts, in bits per dimension unless noted otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Likelihood {
    /// The bound on -log2 p(x_0), the mean over images: `prior + decoder + kl`.
    pub bits_per_dim: f64,
    /// Its standard error, from the spread over images and over any sampled timesteps; `None` for a single image.
    pub standard_error: Option<f64>,
    /// L_T.
    pub prior: f64,
    /// L_0, the term at t = 0.
    pub decoder: f64,
    /// The terms at all other t, summed.
    pub kl: f64,
    /// The training objective's loss, the mean over images and over uniform t.
    pub loss: f64,
    /// Mean squared error of eps for t in each quarter of `0..T`; `None` if no image was evaluated there.
    pub mse_quarters: [Option<f64>; 4],
    /// The timesteps evaluated, ascending.
    pub by_timestep: Vec<TimestepMeans>,
}

/// Means over the images evaluated at one timestep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimestepMeans {
    /// t of the process evaluated.
    pub t: usize,
    /// The number of images.
    pub images: u64,
    /// The bound's term, in bits per dimension.
    pub vb: f64,
    /// Mean squared error of eps.
    pub mse: f64,
    /// Mean squared error of x_0.
    pub xstart_mse: f64,
}

impl BoundSums {
    /// Empty sums for `images` images in these strata.
    pub fn new(strata: &Strata, images: usize) -> Self {
        let zeros = vec![0.0; strata.timesteps()];
        Self {
            weights: (0..strata.len())
                .flat_map(|k| strata.range(k).map(move |_| strata.range(k).len() as f64))
                .collect(),
            counts: zeros.clone(),
            vb: zeros.clone(),
            mse: zeros.clone(),
            xstart_mse: zeros.clone(),
            loss: zeros,
            prior: vec![0.0; images],
            terms: vec![0.0; images],
        }
    }

    /// Adds the terms of images `first..` at `t` `[B]`.
    ///
    /// # Errors
    /// If the terms are not `[B]`, or not finite; the sums are then invalid.
    ///
    /// # Panics
    /// If a timestep or an image is out of range.
    pub fn add_terms(&mut self, first: usize, t: &[usize], terms: &BoundTerms) -> Result<(), EvalError> {
        let [vb, mse, xstart_mse, loss] = [&terms.vb, &terms.mse, &terms.xstart_mse, &terms.loss].map(doubles);
        let (vb, mse, xstart_mse, loss) = (vb?, mse?, xstart_mse?, loss?);
        for (i, &t) in t.iter().enumerate() {
            if !vb[i].is_finite() {
                return Err(EvalError::NotFinite { image: first + i, t });
            }
            self.counts[t] += 1.0;
            self.vb[t] += vb[i];
            self.mse[t] += mse[i];
            self.xstart_mse[t] += xstart_mse[i];
            self.loss[t] += loss[i];
            self.terms[first + i] += self.weights[t] * vb[i];
        }
        Ok(())
    }

    /// Adds the prior terms `[B]` of images `first..`.
    ///
    /// # Errors
    /// If the terms are not `[B]`.
    ///
    /// # Panics
    /// If an image is out of range.
    pub fn add_prior(&mut self, first: usize, prior: &Tensor) -> Result<(), TchError> {
        for (sum, term) in self.prior[first..].iter_mut().zip(doubles(prior)?) {
            *sum += term;
        }
        Ok(())
    }

    /// Replaces every sum by the total over all processes: `add` receives vectors to sum element by element over the
    /// processes (an all-reduce), with the same calls in the same order in each process.
    pub fn merge(&mut self, mut add: impl FnMut(&mut [f64])) {
        let Self { weights: _, counts, vb, mse, xstart_mse, loss, prior, terms } = self;
        for sums in [counts, vb, mse, xstart_mse, loss, prior, terms] {
            add(sums);
        }
    }

    /// The total bound of each image in bits per dimension.
    pub fn by_image(&self) -> Vec<f64> {
        self.prior.iter().zip(&self.terms).map(|(prior, terms)| prior + terms).collect()
    }

    /// The results, once every image has been evaluated in every stratum.
    pub fn likelihood(&self) -> Likelihood {
        let images = self.prior.len() as f64;
        let timesteps = self.counts.len();
        let prior = self.prior.iter().sum::<f64>() / images;
        let decoder = self.weights[0] * self.vb[0] / images;
        let kl = (1..timesteps).map(|t| self.weights[t] * self.vb[t]).sum::<f64>() / images;
        let loss = (0..timesteps).map(|t| self.weights[t] * self.loss[t]).sum::<f64>() / images / timesteps as f64;
        Likelihood {
            bits_per_dim: prior + decoder + kl,
            standard_error: standard_error(&self.by_image()),
            prior,
            decoder,
            kl,
            loss,
            mse_quarters: [0, 1, 2, 3].map(|q| self.mse_of(q)),
            by_timestep: (0..timesteps).filter_map(|t| self.means_at(t)).collect(),
        }
    }

    /// Weighted mean squared error of eps over a quarter of the timesteps.
    fn mse_of(&self, q: usize) -> Option<f64> {
        let timesteps = self.counts.len();
        let of_quarter = (0..timesteps).filter(|&t| quarter(t, timesteps) == q);
        let (sum, weight) = of_quarter.fold((0.0, 0.0), |(sum, weight), t| {
            (sum + self.weights[t] * self.mse[t], weight + self.weights[t] * self.counts[t])
        });
        (weight > 0.0).then(|| sum / weight)
    }

    fn means_at(&self, t: usize) -> Option<TimestepMeans> {
        let count = self.counts[t];
        (count > 0.0).then(|| TimestepMeans {
            t,
            images: count as u64,
            vb: self.vb[t] / count,
            mse: self.mse[t] / count,
            xstart_mse: self.xstart_mse[t] / count,
        })
    }
}

/// The standard error of the mean of independent values; `None` for fewer than two.
fn standard_error(values: &[f64]) -> Option<f64> {
    let count = values.len() as f64;
    if values.len() < 2 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / (count - 1.0) / count).sqrt())
}

fn doubles(tensor: &Tensor) -> Result<Vec<f64>, TchError> {
    Vec::try_from(&tensor.to_kind(Kind::Double))
}
