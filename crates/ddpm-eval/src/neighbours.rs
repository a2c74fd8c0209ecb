//! Precision and recall of a set of images, from the nearest neighbours of their features (Kynkäänniemi et al. 2019).
//!
//! A set's manifold is estimated by balls around its vectors, each of which reaches to the vector's k-th nearest
//! neighbour. Precision is the share of the samples inside a ball of the reference (eq. 2), recall the share of the
//! reference inside a ball of the samples (eq. 3).

use std::ops::Range;

use tch::{Kind, TchError, Tensor};

use crate::EvalError;

/// A set of feature vectors, and the balls that estimate its manifold. Any part of the work is a range of rows, so that
/// processes can share it.
#[derive(Debug)]
pub struct Manifold {
    /// f64 `[N, D]`, centred: distances come from products, which would cancel far from 0.
    features: Tensor,
    /// Their squared norms, `[N]`.
    squares: Tensor,
    centre: Tensor,
    neighbours: usize,
}

impl Manifold {
    /// The manifold of features `[N, D]`, with balls that reach to the k-th of the `neighbours`.
    ///
    /// # Errors
    /// If there are no more than `neighbours` vectors.
    pub fn new(features: &Tensor, neighbours: usize) -> Result<Self, EvalError> {
        let [found, _] = features.size()[..] else {
            return Err(EvalError::Features { found: features.size(), dim: 0 });
        };
        Self::check(found as usize, neighbours)?;
        let features = features.f_to_kind(Kind::Double)?;
        let centre = features.mean_dim(0, false, None);
        let features = features.f_sub(&centre)?;
        Ok(Self { squares: squares(&features)?, features, centre, neighbours })
    }

    /// Refuses a set of `found` vectors if they have fewer than `neighbours` others each.
    ///
    /// # Errors
    /// [`EvalError::TooFewNeighbours`].
    pub fn check(found: usize, neighbours: usize) -> Result<(), EvalError> {
        if found > neighbours { Ok(()) } else { Err(EvalError::TooFewNeighbours { found, neighbours }) }
    }

    /// The squared radius of the ball around each vector in `rows`.
    ///
    /// # Errors
    /// If libtorch fails, for instance for lack of memory.
    pub fn radii(&self, rows: Range<usize>) -> Result<Vec<f64>, EvalError> {
        let part = self.features.f_narrow(0, rows.start as i64, rows.len() as i64)?;
        // The nearest is the vector itself.
        let (nearest, _) = self.distances(&part)?.f_topk(self.neighbours as i64 + 1, 1, false, true)?;
        Ok(Vec::try_from(nearest.f_select(1, self.neighbours as i64)?)?)
    }

    /// 1 for each of `vectors` `[B, D]` that is inside one of the balls with these squared radii, else 0.
    ///
    /// # Errors
    /// If `vectors` have another number of features, or there is not one radius for each ball.
    pub fn contains(&self, vectors: &Tensor, radii: &Tensor) -> Result<Vec<f64>, EvalError> {
        let dim = self.centre.size()[0];
        if vectors.size().get(1) != Some(&dim) {
            return Err(EvalError::Features { found: vectors.size(), dim });
        }
        let vectors = vectors.f_to_kind(Kind::Double)?.f_sub(&self.centre)?;
        let inside = self.distances(&vectors)?.f_le_tensor(radii)?.f_any_dim(1, false)?;
        Ok(Vec::try_from(inside.f_to_kind(Kind::Double)?)?)
    }

    /// Squared distances `[B, N]` of centred vectors from those of the set.
    fn distances(&self, vectors: &Tensor) -> Result<Tensor, EvalError> {
        let products = vectors.f_matmul(&self.features.tr())?.f_mul_scalar(2.0)?;
        let sums = squares(vectors)?.f_unsqueeze(1)?.f_add(&self.squares)?;
        Ok(sums.f_sub(&products)?.f_clamp_min(0.0)?)
    }
}

/// The squared norm of each row.
fn squares(rows: &Tensor) -> Result<Tensor, TchError> {
    rows.f_square()?.f_sum_dim_intlist(1i64, false, Kind::Double)
}
