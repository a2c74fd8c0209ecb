//! A rank's share of the state, copied for a save.

use ddpm_checkpoint::{OwnedSlice, Values};
use ddpm_comm::partition;
use ddpm_model::Error;
use tch::Tensor;
use tch_ext::Snapshot;

use crate::state::TrainState;

/// A copy of this rank's share of the buffers, which on a GPU may still be on its way to the host.
pub(super) fn share_of(state: &TrainState, rank: usize, world: usize) -> Result<Values, Error> {
    let share = |(name, flat): (String, &Tensor)| {
        let range = partition(flat.numel(), rank, world);
        let part = flat.narrow(0, range.start as i64, range.len() as i64);
        ((name, range), part)
    };
    let (places, parts): (Vec<_>, Vec<_>) = state.buffers().into_iter().map(share).unzip();
    let snapshot = Snapshot::of(&parts)?;
    Ok(Box::new(move || {
        let slice = |((name, range), data)| OwnedSlice { name, range, data };
        Ok(places.into_iter().zip(snapshot.read()?).map(slice).collect())
    }))
}
