//! The kernel distance between two sets of images, from random subsets of their features (Bińkowski et al. 2018).

use ddpm_diffusion::{Stream, uniform};
use tch::{Kind, Tensor};

use crate::EvalError;

/// The random subsets over which a kernel distance is averaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subsets {
    /// The number of pairs of subsets.
    pub count: usize,
    /// Vectors in a subset.
    pub size: usize,
    /// Seed of their choice.
    pub seed: u64,
}

/// Which of the two sets a subset is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The samples.
    Samples,
    /// The images that they are compared with.
    Reference,
}

/// A kernel distance: mean and standard deviation (normalised by n) over the subsets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KernelDistance {
    /// The mean, which is unbiased and can be below 0.
    pub mean: f64,
    /// The standard deviation of one subset's distance, not the error of the mean.
    pub std: f64,
}

impl Subsets {
    /// Refuses subsets that a set of `found` vectors cannot fill, or of fewer than two vectors.
    ///
    /// # Errors
    /// [`EvalError::TooFewForSubsets`].
    pub fn check(&self, found: usize) -> Result<(), EvalError> {
        if (2..=found).contains(&self.size) {
            return Ok(());
        }
        Err(EvalError::TooFewForSubsets { found, size: self.size })
    }

    /// The indices of the vectors in subset `index` of a set of `len` vectors, each at most once: a function of (seed,
    /// side, index, len).
    ///
    /// # Errors
    /// [`EvalError::TooFewForSubsets`].
    pub fn draw(&self, side: Side, index: usize, len: usize) -> Result<Vec<i64>, EvalError> {
        self.check(len)?;
        let stream = match side {
            Side::Samples => Stream::SampleSubset(index as u64),
            Side::Reference => Stream::ReferenceSubset(index as u64),
        };
        // The first steps of a Fisher-Yates shuffle.
        let mut indices: Vec<i64> = (0..len as i64).collect();
        for place in 0..self.size {
            let rest = len - place;
            let draw = uniform(self.seed, stream, place as u64) * rest as f64;
            indices.swap(place, place + (draw as usize).min(rest - 1));
        }
        indices.truncate(self.size);
        Ok(indices)
    }
}

impl KernelDistance {
    /// Mean and standard deviation of the distances of the subsets.
    pub fn of(distances: &[f64]) -> Self {
        let count = distances.len() as f64;
        let mean = distances.iter().sum::<f64>() / count;
        let variance = distances.iter().map(|distance| (distance - mean).powi(2)).sum::<f64>() / count;
        Self { mean, std: variance.sqrt() }
    }
}

/// The unbiased estimate of the squared maximum mean discrepancy between features `x` and `y` `[M, D]`, in `f64`, with
/// the kernel `(xᵀy / D + 1)³`.
///
/// # Errors
/// If the two have different shapes, or fewer than two rows.
pub fn kernel_distance(x: &Tensor, y: &Tensor) -> Result<f64, EvalError> {
    let [rows, dim] = x.size()[..] else { return Err(EvalError::Features { found: x.size(), dim: 0 }) };
    if y.size() != x.size() {
        return Err(EvalError::Features { found: y.size(), dim });
    }
    if rows < 2 {
        return Err(EvalError::TooFew { found: rows });
    }
    let (x, y) = (x.f_to_kind(Kind::Double)?, y.f_to_kind(Kind::Double)?);
    let kernel = |a: &Tensor, b: &Tensor| -> Result<Tensor, EvalError> {
        Ok(a.f_matmul(&b.tr())?.f_div_scalar(dim as f64)?.f_add_scalar(1.0)?.f_pow_tensor_scalar(3)?)
    };
    let total = |kernel: &Tensor| kernel.sum(Kind::Double).double_value(&[]);
    // A vector's similarity to itself would bias the estimate.
    let others = |kernel: Tensor| total(&kernel) - kernel.trace().double_value(&[]);
    let (within, between) = (others(kernel(&x, &x)?) + others(kernel(&y, &y)?), total(&kernel(&x, &y)?));
    let rows = rows as f64;
    Ok(within / (rows * (rows - 1.0)) - 2.0 * between / (rows * rows))
}
