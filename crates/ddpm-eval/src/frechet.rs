//! The Fréchet distance between two sets of images, from Gaussians fitted to their features (Heusel et al. 2017, eq.
//! 6).

use std::cell::OnceCell;

use tch::{Kind, Tensor};

use crate::EvalError;

/// A Gaussian distribution of feature vectors.
#[derive(Debug)]
pub struct Gaussian {
    mean: Tensor,
    covariance: Tensor,
    /// The covariance's square root, once a distance has needed it.
    root: OnceCell<Tensor>,
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
        Ok(Self { mean, covariance, root: OnceCell::new() })
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
    /// The last root is of a symmetric positive semidefinite matrix, so eigenvalues suffice. The root of this Gaussian's
    /// own covariance, C1, is computed once for all distances from it.
    ///
    /// # Errors
    /// If the two differ in their number of features, or memory runs out.
    pub fn frechet_distance(&self, other: &Self) -> Result<f64, EvalError> {
        if self.dim() != other.dim() {
            return Err(EvalError::Widths { ours: self.dim(), theirs: other.dim() });
        }
        let root = self.root()?;
        let product = root.f_matmul(&other.covariance)?.f_matmul(root)?;
        let product = product.f_add(&product.tr())?.f_mul_scalar(0.5)?;
        let roots = square_roots(&product.f_linalg_eigvalsh("L")?);
        let distance_of_means = (&self.mean - &other.mean).square();
        let traces = self.covariance.trace() + other.covariance.trace();
        let distance = distance_of_means.sum(Kind::Double) + traces - roots.sum(Kind::Double) * 2.0;
        Ok(distance.clamp_min(0.0).double_value(&[]))
    }

    /// C^½ of the covariance, `[D, D]`.
    fn root(&self) -> Result<&Tensor, EvalError> {
        if let Some(root) = self.root.get() {
            return Ok(root);
        }
        let (values, vectors) = self.covariance.f_linalg_eigh("L")?;
        let root = vectors.f_mul(&square_roots(&values))?.f_matmul(&vectors.tr())?;
        Ok(self.root.get_or_init(|| root))
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
