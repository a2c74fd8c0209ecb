//! The Frechet distance between two sets of feature vectors, each taken for a Gaussian.

use tch::{Kind, Tensor};

use crate::EvalError;

/// Count, sum and sum of outer products of feature vectors, in `f64`: enough for their mean and covariance. Processes
/// that share the work add up theirs element by element: see [`FeatureSums::merge`].
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureSums {
    count: f64,
    /// `[D]`
    sum: Vec<f64>,
    /// `[D, D]`
    outer: Vec<f64>,
}

impl FeatureSums {
    /// Nothing yet, of vectors of `features` numbers.
    pub fn new(features: usize) -> Self {
        Self { count: 0.0, sum: vec![0.0; features], outer: vec![0.0; features * features] }
    }

    /// Takes in vectors `[B, D]`.
    ///
    /// # Errors
    /// Vectors of another length.
    pub fn add(&mut self, features: &Tensor) -> Result<(), EvalError> {
        let features = features.to_kind(Kind::Double);
        let due = self.sum.len();
        let &[count, found] = features.size().as_slice() else {
            return Err(EvalError::Features { due, found: features.size() });
        };
        if found as usize != due {
            return Err(EvalError::Features { due, found: features.size() });
        }
        self.count += count as f64;
        for (sums, batch) in [
            (&mut self.sum, features.sum_dim_intlist(0, false, Kind::Double)),
            (&mut self.outer, features.tr().f_matmul(&features)?.flatten(0, -1)),
        ] {
            let batch = Vec::<f64>::try_from(&batch)?;
            sums.iter_mut().zip(batch).for_each(|(sum, value)| *sum += value);
        }
        Ok(())
    }

    /// How many vectors were taken in.
    pub fn count(&self) -> u64 {
        self.count as u64
    }

    /// Replaces every sum by that over all who share the work: `add` gets vectors to add up element by element, the same
    /// ones in the same order in each process.
    pub fn merge(&mut self, mut add: impl FnMut(&mut [f64])) {
        add(std::slice::from_mut(&mut self.count));
        add(&mut self.sum);
        add(&mut self.outer);
    }

    /// The Frechet distance between the Gaussians of these vectors and of others (Heusel et al. 2017, section 2):
    /// `|m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½)`, with unbiased covariances.
    ///
    /// tr (C1 C2)^½ is the sum of the roots of the eigenvalues of the symmetric C1^½ C2 C1^½, which are those of C1 C2:
    /// no complex numbers arise, and covariances of too few vectors, which are singular, need no jitter.
    ///
    /// # Errors
    /// Fewer than two vectors on either side, vectors of different lengths, or numbers that are not finite.
    pub fn distance(&self, other: &Self) -> Result<f64, EvalError> {
        if self.sum.len() != other.sum.len() {
            return Err(EvalError::Features { due: self.sum.len(), found: vec![other.sum.len() as i64] });
        }
        let ((mean1, cov1), (mean2, cov2)) = (self.gaussian()?, other.gaussian()?);
        let (values, vectors) = cov1.f_linalg_eigh("L")?;
        // Rounding leaves eigenvalues of 0 a little below it.
        let root = vectors.f_matmul(&values.clamp_min(0.0).sqrt().diag(0))?.f_matmul(&vectors.tr())?;
        let inner = root.f_matmul(&cov2)?.f_matmul(&root)?;
        let cross = ((&inner + inner.tr()) * 0.5).f_linalg_eigvalsh("L")?.clamp_min(0.0).sqrt().sum(Kind::Double);
        let distance = (mean1 - mean2).square().sum(Kind::Double) + cov1.trace() + cov2.trace() - cross * 2.0;
        // That of equal Gaussians is 0 but for rounding.
        Ok(distance.double_value(&[]).max(0.0))
    }

    /// Mean `[D]` and covariance `[D, D]`.
    fn gaussian(&self) -> Result<(Tensor, Tensor), EvalError> {
        if self.count < 2.0 {
            return Err(EvalError::TooFew { found: self.count() });
        }
        if !self.sum.iter().chain(&self.outer).all(|sum| sum.is_finite()) {
            return Err(EvalError::NotFinite);
        }
        let size = self.sum.len() as i64;
        let mean = Tensor::from_slice(&self.sum) / self.count;
        let outer = Tensor::from_slice(&self.outer).view([size, size]);
        let covariance = (outer - mean.outer(&mean) * self.count) / (self.count - 1.0);
        Ok((mean, covariance))
    }
}
