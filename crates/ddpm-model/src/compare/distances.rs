//! Kernel distance, precision and recall of two sets of features that every rank holds; the work is shared.

use std::ops::Range;

use ddpm_comm::{Collective, Reduce, agree};
use ddpm_eval::{KernelDistance, Manifold, Side, Subsets};
use tch::{Device, Tensor};

use crate::error::{Error, Failure};

/// Rows whose distances from all others are computed at once: bounds memory, and fixes the shapes of the products, so
/// that results do not depend on the number of ranks.
const BLOCK: usize = 256;

/// The quality and the diversity of samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrecisionRecall {
    /// The share of the samples that are inside the manifold of the reference.
    pub precision: f64,
    /// The share of the reference that is inside the manifold of the samples.
    pub recall: f64,
}

/// The kernel distance of features `[N, D]` of samples and `[M, D]` of a reference, computed on `device`.
///
/// # Errors
/// One of the sets is smaller than a subset.
pub fn kernel_distance(
    comm: &dyn Collective,
    samples: &Tensor,
    reference: &Tensor,
    subsets: Subsets,
    device: Device,
) -> Result<KernelDistance, Failure> {
    let subset = |set: &Tensor, side, index| -> Result<Tensor, Error> {
        let rows = subsets.draw(side, index, set.size()[0] as usize)?;
        Ok(set.f_index_select(0, &Tensor::f_from_slice(&rows)?)?.f_to_device(device)?)
    };
    let distances = shared(comm, subsets.count, 1, |range| {
        let of = |index| -> Result<f64, Error> {
            let (ours, theirs) = (subset(samples, Side::Samples, index)?, subset(reference, Side::Reference, index)?);
            Ok(ddpm_eval::kernel_distance(&ours, &theirs)?)
        };
        range.map(of).collect()
    })?;
    Ok(KernelDistance::of(&distances))
}

/// Precision and recall of features `[N, D]` of samples with respect to `[M, D]` of a reference, by manifolds of k
/// nearest `neighbours`, computed on `device`.
///
/// # Errors
/// One of the sets has no more than `neighbours` images.
pub fn precision_recall(
    comm: &dyn Collective,
    samples: &Tensor,
    reference: &Tensor,
    neighbours: usize,
    device: Device,
) -> Result<PrecisionRecall, Failure> {
    let here =
        || -> Result<(Tensor, Tensor), Error> { Ok((samples.f_to_device(device)?, reference.f_to_device(device)?)) };
    let (samples, reference) = agree::unanimous(comm, here())?;
    Ok(PrecisionRecall {
        precision: share_inside(comm, &samples, &reference, neighbours)?,
        recall: share_inside(comm, &reference, &samples, neighbours)?,
    })
}

/// The share of `vectors` that are inside the manifold of `set`.
fn share_inside(comm: &dyn Collective, vectors: &Tensor, set: &Tensor, neighbours: usize) -> Result<f64, Failure> {
    let manifold = agree::unanimous(comm, Manifold::new(set, neighbours).map_err(Error::from))?;
    let radii = shared(comm, set.size()[0] as usize, BLOCK, |rows| Ok(manifold.radii(rows)?))?;
    let radii = agree::unanimous(comm, Tensor::f_from_slice(&radii).map_err(Error::from))?.to_device(set.device());
    let count = vectors.size()[0] as usize;
    let inside = shared(comm, count, BLOCK, |rows| {
        Ok(manifold.contains(&vectors.f_narrow(0, rows.start as i64, rows.len() as i64)?, &radii)?)
    })?;
    Ok(inside.iter().sum::<f64>() / count as f64)
}

/// The values of `0..count`, on every rank; each rank computes every `comm.size()`-th block.
fn shared(
    comm: &dyn Collective,
    count: usize,
    block: usize,
    compute: impl Fn(Range<usize>) -> Result<Vec<f64>, Error>,
) -> Result<Vec<f64>, Failure> {
    let mut values = vec![0.0; count];
    let mut fill = || {
        for first in (comm.rank() * block..count).step_by(comm.size() * block) {
            let range = first..(first + block).min(count);
            values[range.clone()].copy_from_slice(&compute(range)?);
        }
        Ok::<_, Error>(())
    };
    agree::unanimous(comm, fill())?;
    comm.all_reduce_f64(&mut values, Reduce::Sum);
    Ok(values)
}
