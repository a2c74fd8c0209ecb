//! Restores the training state: each rank broadcasts the shards that it has read.

use std::collections::HashMap;

use ddpm_comm::{Collective, agree};
use ddpm_config::Settings;
use ddpm_model::Failure;
use ddpm_nn::Network;
use tch::{Device, Kind, Tensor};

use crate::checkpointing::saver::Saver;
use crate::checkpointing::select::Checkpoint;
use crate::state::TrainState;

/// Restores the state stored in `checkpoint` to `device`, from the shards that each rank has read. Then sets aside
/// all later checkpoints and snapshots in the store.
pub fn restore(
    saver: &Saver,
    comm: &dyn Collective,
    settings: &Settings,
    network: &Network,
    device: Device,
    checkpoint: &Checkpoint,
) -> Result<TrainState, Failure> {
    let (rank, world) = (comm.rank(), comm.size());
    let Checkpoint { manifest, shards } = checkpoint;
    let zeros = |len: u64| Tensor::zeros([len as i64], (Kind::Float, Device::Cpu));
    let buffers: HashMap<&str, Tensor> = manifest.buffers.iter().map(|b| (b.name.as_str(), zeros(b.len))).collect();
    for (index, entry) in manifest.shards.iter().enumerate() {
        let owner = index % world;
        let mut held = (owner == rank).then(|| shards[index / world].slices());
        for hold in &entry.holds {
            let whole = buffers.get(hold.buffer.as_str()).expect("the manifest agrees with itself");
            let mut target = whole.narrow(0, hold.start as i64, (hold.end - hold.start) as i64);
            tch_ext::with_f32_mut(&mut target, |target| {
                if let Some(slice) = held.as_mut().and_then(Iterator::next) {
                    target.copy_from_slice(slice.data);
                }
                comm.broadcast(target, owner);
            })?;
        }
    }
    let buffer = |name: &str| buffers.get(name).map(Tensor::shallow_clone);
    let state = agree::unanimous(comm, TrainState::restore(settings, network, device, manifest, buffer))?;
    // Only now is it certain that the run continues from this checkpoint.
    agree::act_on_root(comm, || saver.rewind(manifest.step))?;
    Ok(state)
}
