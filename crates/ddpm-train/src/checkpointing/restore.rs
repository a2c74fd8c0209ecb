//! Restores the training state: each rank broadcasts the shards that it has read.

use ddpm_comm::{Collective, agree};
use ddpm_config::Settings;
use ddpm_model::Failure;
use ddpm_nn::Network;
use tch::Device;

use crate::checkpointing::saver::Saver;
use crate::checkpointing::select::{Checkpoint, ranges};
use crate::state::TrainState;

/// Restores the state stored in `checkpoint` to `device`, from the shards that each rank has read. On the CPU the
/// checkpoint's buffers become those of the state. Then sets aside all later checkpoints and snapshots in the store.
pub fn restore(
    saver: &Saver,
    comm: &dyn Collective,
    settings: &Settings,
    network: &Network,
    device: Device,
    checkpoint: &Checkpoint,
) -> Result<TrainState, Failure> {
    let Checkpoint { manifest, buffers } = checkpoint;
    for (index, entry) in manifest.shards.iter().enumerate() {
        for mut range in ranges(manifest, buffers, entry) {
            tch_ext::with_f32_mut(&mut range, |values| comm.broadcast(values, index % comm.size()))?;
        }
    }
    let place = |name: &str| manifest.buffers.iter().position(|buffer| buffer.name == name);
    let buffer = |name: &str| place(name).map(|place| buffers[place].shallow_clone());
    let state = agree::unanimous(comm, TrainState::restore(settings, network, device, manifest, buffer))?;
    // Only now is it certain that the run continues from this checkpoint.
    agree::act_on_root(comm, || saver.rewind(manifest.step))?;
    Ok(state)
}
