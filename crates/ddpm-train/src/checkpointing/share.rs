//! A rank's share of the state, copied for a save.

use ddpm_checkpoint::{OwnedSlice, Values};
use ddpm_comm::partition;
use ddpm_model::Error;
use tch::Tensor;
use tch_ext::Snapshot;

use crate::state::TrainState;

/// A copy of this rank's share of the buffers, which on a GPU may still be on its way to the host.
pub(super) fn share_of(state: &TrainState, rank: usize, world: usize) -> Result<Values, Error> {
    let share = |flat: &Tensor| partition(flat.numel(), rank, world);
    let places: Vec<_> = state.buffers().into_iter().map(|(name, flat)| (name, share(flat))).collect();
    let part = |(_, flat): (String, &Tensor)| flat.narrow(0, share(flat).start as i64, share(flat).len() as i64);
    let snapshot = Snapshot::of(&state.buffers().into_iter().map(part).collect::<Vec<_>>())?;
    Ok(Box::new(move || {
        let slice = |((name, range), data)| OwnedSlice { name, range, data };
        Ok(places.into_iter().zip(snapshot.read()?).map(slice).collect())
    }))
}
