//! Mean and covariance of feature vectors that arrive in batches.

use tch::{Device, Kind, Tensor};

use crate::{EvalError, Gaussian};

/// Mean and covariance of feature vectors that arrive in batches, in `f64`.
///
/// Sums are centred on the mean, not on 0, so that features far from 0 lose no precision. Processes that share the work
/// combine their moments with [`FeatureMoments::merge`].
#[derive(Debug)]
pub struct FeatureMoments {
    count: i64,
    /// `[D]`.
    mean: Tensor,
    /// Sum of the outer products of the centred features, `[D, D]`.
    scatter: Tensor,
}

impl FeatureMoments {
    /// Empty moments, for vectors of `dim` features.
    ///
    /// # Errors
    /// If there is not enough memory for `dim * dim` numbers.
    pub fn new(dim: i64) -> Result<Self, EvalError> {
        let zeros = |size: &[i64]| Tensor::f_zeros(size, (Kind::Double, Device::Cpu));
        Ok(Self { count: 0, mean: zeros(&[dim])?, scatter: zeros(&[dim, dim])? })
    }

    /// Adds a batch of features `[B, D]`.
    ///
    /// # Errors
    /// If the features are not `[B, D]`, or memory runs out.
    pub fn add(&mut self, features: &Tensor) -> Result<(), EvalError> {
        let dim = self.dim();
        match features.size()[..] {
            [0, d] if d == dim => return Ok(()),
            [_, d] if d == dim => (),
            _ => return Err(EvalError::Features { found: features.size(), dim }),
        }
        let features = features.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
        let new = features.size()[0];
        let share = new as f64 / (self.count + new) as f64;
        self.recentre(&self.mean + (features.mean_dim(0, false, None) - &self.mean) * share)?;
        let centred = features.f_sub(&self.mean)?;
        let _ = self.scatter.f_add_(&centred.tr().f_matmul(&centred)?)?;
        self.count += new;
        Ok(())
    }

    /// Combines the moments of all processes: `add` receives vectors to sum element by element over the processes (an
    /// all-reduce), with the same calls in the same order in each process.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn merge(&mut self, mut add: impl FnMut(&mut [f64])) -> Result<(), EvalError> {
        let mut sums: Vec<f64> = Vec::try_from(&self.mean * self.count as f64)?;
        sums.push(self.count as f64);
        add(&mut sums);
        let count = sums.pop().unwrap_or(0.0);
        if count > 0.0 {
            self.recentre(Tensor::from_slice(&sums) / count)?;
        }
        let mut scatter: Vec<f64> = Vec::try_from(self.scatter.view(-1))?;
        add(&mut scatter);
        self.scatter = Tensor::f_from_slice(&scatter)?.view_as(&self.scatter);
        self.count = count as i64;
        Ok(())
    }

    /// Moves the centre to another point p: the sum of (x - p)(x - p)ᵀ exceeds that about the mean m by n (m - p)(m -
    /// p)ᵀ.
    fn recentre(&mut self, point: Tensor) -> Result<(), EvalError> {
        let shift = &self.mean - &point;
        let _ = self.scatter.f_add_(&shift.f_outer(&(&shift * self.count as f64))?)?;
        self.mean = point;
        Ok(())
    }

    /// D, the number of features per vector.
    pub fn dim(&self) -> i64 {
        self.mean.size()[0]
    }

    /// The number of vectors.
    pub fn count(&self) -> i64 {
        self.count
    }

    /// The Gaussian with this mean and this covariance, normalised by n - 1.
    ///
    /// # Errors
    /// If there are fewer than two vectors.
    pub fn gaussian(&self) -> Result<Gaussian, EvalError> {
        match self.count {
            0 | 1 => Err(EvalError::TooFew { found: self.count }),
            count => Gaussian::new(self.mean.shallow_clone(), self.scatter.f_div_scalar((count - 1) as f64)?),
        }
    }
}
