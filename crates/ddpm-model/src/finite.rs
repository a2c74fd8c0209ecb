//! Checks for values that are not finite, which a network produces after training has diverged.

use ddpm_nn::Weights;
use tch::{Kind, Tensor};

use crate::error::{Error, ErrorKind};

/// The number of rows of `values` `[N, ...]` that contain NaN or infinity, and the index of the first; `None` if
/// there are none.
pub fn broken_rows(values: &Tensor) -> Option<(i64, i64)> {
    let broken = values.isfinite().flatten(1, -1).all_dim(1, false).logical_not();
    let rows = broken.nonzero();
    let count = rows.size()[0];
    (count > 0).then(|| (count, rows.int64_value(&[0, 0])))
}

/// Refuses weights that are not finite; `of` names their model in the message.
pub fn check_weights(weights: &Weights, of: &str) -> Result<(), Error> {
    let flat = weights.flat();
    let broken = flat.isfinite().logical_not().sum(Kind::Int64).int64_value(&[]);
    if broken == 0 {
        return Ok(());
    }
    let all = flat.numel();
    Err(diverged(format!("{of}: {broken} of {all} weights are not finite")))
}

/// Refuses results `[N, ...]` of a network that are not finite. `first` is the index of the first image; `what` names
/// the results and the network in the message.
pub fn check_images(results: &Tensor, first: usize, what: &str) -> Result<(), Error> {
    let Some((count, row)) = broken_rows(results) else { return Ok(()) };
    let (all, first) = (results.size()[0], first as i64 + row);
    Err(diverged(format!("{what}: {count} of {all} are not finite, first at image {first}")))
}

/// The error for a network with values that are not finite; `found` names the network and the values.
pub fn diverged(found: String) -> Error {
    let message = format!("{found}, as after training that diverged; go back to an earlier step, or use other weights");
    Error::new(ErrorKind::Diverged, message)
}
