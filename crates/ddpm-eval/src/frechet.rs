//! The Fréchet distance between two sets of images by the Gaussians of their features (Heusel et al. 2017, eq. 6).

use tch::{Device, Kind, Tensor};

use crate::EvalError;

/// Mean and covariance of feature vectors that arrive in batches, in `f64`.
///
/// Sums are about the mean itself, not about 0, so that features far from 0 lose no digits. Processes that share the work
/// join theirs by [`FeatureMoments::merge`].
#[derive(Debug)]
pub struct FeatureMoments {
    count: i64,
    /// `[D]`.
    mean: Tensor,
    /// Sum of the outer products of the features' distances from their mean, `[D, D]`.
    scatter: Tensor,
}

impl FeatureMoments {
    /// Of no vectors yet, of `dim` features.
    ///
    /// # Errors
    /// There is no memory for `dim * dim` numbers.
    pub fn new(dim: i64) -> Result<Self, EvalError> {
        let zeros = |size: &[i64]| Tensor::f_zeros(size, (Kind::Double, Device::Cpu));
        Ok(Self { count: 0, mean: zeros(&[dim])?, scatter: zeros(&[dim, dim])? })
    }

    /// Takes in a batch of features `[B, D]`.
    ///
    /// # Errors
    /// The features are not `[B, D]`.
    pub fn add(&mut self, features: &Tensor) -> Result<(), EvalError> {
        let dim = self.mean.size()[0];
        match features.size()[..] {
            [0, d] if d == dim => return Ok(()),
            [_, d] if d == dim => (),
            _ => return Err(EvalError::Features { found: features.size(), dim }),
        }
        let features = features.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
        let new = features.size()[0];
        let share = new as f64 / (self.count + new) as f64;
        self.move_to(&self.mean + (features.mean_dim(0, false, None) - &self.mean) * share);
        let centred = features - &self.mean;
        self.scatter += centred.tr().matmul(&centred);
        self.count += new;
        Ok(())
    }

    /// Takes in what the other processes have: `add` gets vectors to add up element by element over all who share the
    /// work, the same ones in the same order in each process.
    ///
    /// # Errors
    /// libtorch fails.
    pub fn merge(&mut self, mut add: impl FnMut(&mut [f64])) -> Result<(), EvalError> {
        let mut sums: Vec<f64> = Vec::try_from(&self.mean * self.count as f64)?;
        sums.push(self.count as f64);
        add(&mut sums);
        let count = sums.pop().unwrap_or(0.0);
        if count > 0.0 {
            self.move_to(Tensor::from_slice(&sums) / count);
        }
        let mut scatter: Vec<f64> = Vec::try_from(self.scatter.view(-1))?;
        add(&mut scatter);
        self.scatter = Tensor::from_slice(&scatter).view_as(&self.scatter);
        self.count = count as i64;
        Ok(())
    }

    /// Sums about another point than the mean so far: (x - p)(x - p)ᵀ adds up to n (m - p)(m - p)ᵀ more than about m.
    fn move_to(&mut self, point: Tensor) {
        let apart = &self.mean - &point;
        self.scatter += apart.outer(&apart) * self.count as f64;
        self.mean = point;
    }

    /// D, how many features a vector has.
    pub fn dim(&self) -> i64 {
        self.mean.size()[0]
    }

    /// How many vectors.
    pub fn count(&self) -> i64 {
        self.count
    }

    /// The Fréchet distance of the two Gaussians:
    /// `|mean1 - mean2|² + tr(C1 + C2 - 2 (C1^½ C2 C1^½)^½)`, the covariances with n - 1.
    ///
    /// The last root is of a symmetric matrix that is not negative, so eigenvalues suffice; those below 0 are rounding.
    ///
    /// # Errors
    /// A side has fewer than two vectors, or the two differ in their number of features.
    pub fn frechet_distance(&self, other: &Self) -> Result<f64, EvalError> {
        let (ours, theirs) = (self.covariance()?, other.covariance()?);
        let (values, vectors) = ours.f_linalg_eigh("L")?;
        let root = (&vectors * values.clamp_min(0.0).sqrt()).matmul(&vectors.tr());
        let product = root.f_matmul(&theirs)?.matmul(&root);
        let roots = ((&product + product.tr()) * 0.5).f_linalg_eigvalsh("L")?.clamp_min(0.0).sqrt();
        let apart = (&self.mean - &other.mean).square();
        let distance = apart.sum(Kind::Double) + ours.trace() + theirs.trace() - roots.sum(Kind::Double) * 2.0;
        Ok(distance.double_value(&[]))
    }

    fn covariance(&self) -> Result<Tensor, EvalError> {
        match self.count {
            0 | 1 => Err(EvalError::TooFew { found: self.count }),
            count => Ok(&self.scatter / (count - 1) as f64),
        }
    }
}
