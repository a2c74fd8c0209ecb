//! The Fréchet distance between two sets of images, from Gaussians fitted to their features (Heusel et al. 2017, eq.
//! 6).

use tch::{Kind, Tensor};

use crate::EvalError;

/// A Gaussian distribution of feature vectors.
#[derive(Debug)]
pub struct Gaussian {
    mean: Tensor,
    covariance: Tensor,
}

impl Gaussian {
    /// A Gaussian with mean `[D]` and covariance `[D, D]`.
    ///
    /// # Errors
    /// If they have other shapes, or are not finite.
    pub fn new(mean: Tensor, covariance: Tensor) -> Result<Self, EvalError> {
        let (mean, covariance) = (mean.f_to_kind(Kind::Double)?, covariance.f_to_kind(Kind::Double)?);
        match (&mean.size()[..], &covariance.size()[..]) {
            ([d], [rows, columns]) if rows == d && columns == d => (),
            (mean, covariance) => {
                return Err(EvalError::Moments { mean: mean.to_vec(), covariance: covariance.to_vec() });
            }
        }
        if [&mean, &covariance].iter().any(|values| values.isfinite().all().int64_value(&[]) == 0) {
            return Err(EvalError::MomentsNotFinite);
        }
        Ok(Self { mean, covariance })
    }

    /// The mean, f64 `[D]`.
    pub fn mean(&self) -> &Tensor {
        &self.mean
    }

    /// The covariance, f64 `[D, D]`.
    pub fn covariance(&self) -> &Tensor {
        &self.covariance
    }

    /// D, the number of features per vector.
    pub fn dim(&self) -> i64 {
        self.mean.size()[0]
    }

    /// The Fréchet distance of two Gaussians: `|mean1 - mean2|² + tr(C1 + C2 - 2 (C1^½ C2 C1^½)^½)`.
    ///
    /// The last root is of a symmetric positive semidefinite matrix, so eigenvalues suffice.
    ///
    /// # Errors
    /// If the two differ in their number of features.
    pub fn frechet_distance(&self, other: &Self) -> Result<f64, EvalError> {
        if self.dim() != other.dim() {
            return Err(EvalError::Widths { ours: self.dim(), theirs: other.dim() });
        }
        let (ours, theirs) = (&self.covariance, &other.covariance);
        let (values, vectors) = ours.f_linalg_eigh("L")?;
        let root = (&vectors * square_roots(&values)).matmul(&vectors.tr());
        let product = root.f_matmul(theirs)?.matmul(&root);
        let roots = square_roots(&((&product + product.tr()) * 0.5).f_linalg_eigvalsh("L")?);
        let distance_of_means = (&self.mean - &other.mean).square();
        let distance =
            distance_of_means.sum(Kind::Double) + ours.trace() + theirs.trace() - roots.sum(Kind::Double) * 2.0;
        Ok(distance.clamp_min(0.0).double_value(&[]))
    }
}

/// The square roots of the eigenvalues of a positive semidefinite matrix.
///
/// Eigenvalues within rounding errors of 0, on either side, count as 0: with fewer vectors than features there are
/// many, and each would add the root of an error, 1e-8 times the largest eigenvalue.
fn square_roots(eigenvalues: &Tensor) -> Tensor {
    let rounding = eigenvalues.size()[0] as f64 * f64::EPSILON * eigenvalues.max().double_value(&[]);
    eigenvalues.threshold(rounding, 0.0).sqrt()
}
