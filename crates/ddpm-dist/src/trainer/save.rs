//! Saving and loading the training state, all ranks together.

use std::collections::HashMap;
use std::sync::Arc;

use ddpm_checkpoint::{Attempt, BufferSlice, Manifest, SCHEMA, ShardData, ShardEntry, Store, nonce, share};
use ddpm_comm::Collective;
use ddpm_config::{OnFailure, Settings};
use ddpm_nn::Network;
use tch::Tensor;

use super::state::{TrainState, tensor_table};
use crate::coordinator::unanimous;
use crate::failure::{Exit, Failure};

/// Writes the checkpoints of one run.
pub struct Saver {
    store: Store,
    comm: Arc<dyn Collective>,
    /// Images in an epoch.
    dataset: u64,
    /// The step that this run was resumed from, which retention spares.
    resumed_from: Option<u64>,
    /// The newest step committed.
    last_saved: Option<u64>,
    /// Saves that failed.
    failures: u64,
}

impl Saver {
    /// Opens the store, and writes the run's identity if it is new.
    pub fn open(
        comm: &Arc<dyn Collective>,
        settings: &Settings,
        dataset: u64,
        resumed_from: Option<u64>,
    ) -> Result<Self, Failure> {
        let opened = Store::open(&settings.checkpoint_uri()).map_err(Failure::from);
        let store = unanimous(comm.as_ref(), opened)?;
        let created = if comm.rank() == 0 {
            store.create_run(&config_json(settings)).map(drop).map_err(Failure::from)
        } else {
            Ok(())
        };
        unanimous(comm.as_ref(), created)?;
        Ok(Self { store, comm: Arc::clone(comm), dataset, resumed_from, last_saved: resumed_from, failures: 0 })
    }

    /// Where the checkpoints are.
    pub fn uri(&self) -> &str {
        self.store.uri()
    }

    /// Saves `state` unless this very step is saved already. A failure is warned of and counted, or ends the run, by
    /// `checkpoint.on_failure`; the older checkpoints stand either way.
    pub fn save(&mut self, settings: &Settings, network: &Network, state: &TrainState) -> Result<(), Failure> {
        if self.last_saved == Some(state.step) {
            return Ok(());
        }
        if state.skipped_in_a_row > 0 {
            tracing::warn!("step {} is not saved: its gradient was not finite", state.step);
            return Ok(());
        }
        match self.try_save(settings, network, state) {
            Ok(()) => {
                self.last_saved = Some(state.step);
                tracing::info!("saved step {} in {}", state.step, self.store.uri());
                Ok(())
            }
            // Only what the store did is forgiven: a rank's own trouble, or another writer, is not.
            Err(failure)
                if settings.checkpoint.on_failure == OnFailure::Warn
                    && failure.everywhere
                    && failure.exit == Exit::Storage =>
            {
                self.failures += 1;
                tracing::warn!(
                    "step {} is not saved ({} failed so far; {}): {failure}",
                    state.step,
                    self.failures,
                    self.last_saved
                        .map_or("there is no checkpoint yet".into(), |step| format!("the last is of step {step}")),
                );
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    /// The last state must not be lost in silence: as [`save`](Self::save), but a failure always is one. A run that has
    /// not begun, or whose gradient is not finite, has nothing to save.
    pub fn save_last(&mut self, settings: &Settings, network: &Network, state: &TrainState) -> Result<(), Failure> {
        if state.step == 0 || state.skipped_in_a_row > 0 {
            return Ok(());
        }
        self.save(settings, network, state)?;
        if self.last_saved == Some(state.step) {
            return Ok(());
        }
        Err(Failure::new(
            Exit::Storage,
            format!(
                "the last step, {}, could not be saved in {}; mend the store and resume",
                state.step,
                self.store.uri()
            ),
        )
        .everywhere())
    }

    fn try_save(&self, settings: &Settings, network: &Network, state: &TrainState) -> Result<(), Failure> {
        let comm = self.comm.as_ref();
        let (rank, world) = (comm.rank(), comm.size());
        let drawn = if rank == 0 { Attempt::generate().to_string() } else { String::new() };
        let attempt = comm.broadcast_bytes(drawn.into_bytes(), 0);
        let attempt: Attempt = String::from_utf8_lossy(&attempt).parse().map_err(Failure::internal)?;

        let mut ours = Vec::new();
        for (name, flat) in state.buffers() {
            let range = share(flat.numel(), rank, world);
            let part = flat.narrow(0, range.start as i64, range.len() as i64);
            ours.push((name, range, Vec::<f32>::try_from(&part)?));
        }
        let slices: Vec<BufferSlice> =
            ours.iter().map(|(name, range, data)| BufferSlice { name, range: range.clone(), data }).collect();
        let written = self.store.write_shard(state.step, &attempt, rank, world, &slices).map_err(Failure::from);
        let entry = unanimous(comm, written)?;
        let entries = comm.gather_bytes(&serde_json::to_vec(&entry).map_err(Failure::internal)?);

        let committed = if rank == 0 {
            let entries = entries.iter().map(|bytes| serde_json::from_slice::<ShardEntry>(bytes));
            let shards = entries.collect::<Result<Vec<_>, _>>().map_err(Failure::internal);
            shards.and_then(|shards| self.commit(settings, network, state, attempt, shards))
        } else {
            Ok(())
        };
        unanimous(comm, committed)
    }

    fn commit(
        &self,
        settings: &Settings,
        network: &Network,
        state: &TrainState,
        attempt: Attempt,
        shards: Vec<ShardEntry>,
    ) -> Result<(), Failure> {
        let position = state.step * settings.train.global_batch as u64;
        self.store.commit(&Manifest {
            schema: SCHEMA,
            step: state.step,
            position,
            epoch: position / self.dataset,
            seed: settings.seed,
            attempt,
            nonce: nonce(),
            lease: 0,
            program: format!("ddpm-dist {}", env!("CARGO_PKG_VERSION")),
            config_hash: settings.fingerprint(),
            config: config_json(settings),
            state: state.counters(self.dataset),
            buffers: state.buffer_table(),
            shards,
            tensors: tensor_table(network),
        })?;
        let c = &settings.checkpoint;
        // The commit stands whatever becomes of older checkpoints.
        match self.store.retain(c.keep_last, (c.keep_every > 0).then_some(c.keep_every), self.resumed_from) {
            Ok(retained) => retained.warnings.iter().for_each(|warning| tracing::warn!("retention: {warning}")),
            Err(error) => tracing::warn!("retention: {error}"),
        }
        Ok(())
    }

    /// The state that `manifest` names: each shard is read and verified by one rank, which sends it to the others. Later
    /// checkpoints are set aside.
    pub fn load(&self, settings: &Settings, network: &Network, manifest: &Manifest) -> Result<TrainState, Failure> {
        let comm = self.comm.as_ref();
        let (rank, world) = (comm.rank(), comm.size());
        let indices = (rank..manifest.shards.len()).step_by(world);
        let read: Result<Vec<ShardData>, _> = indices.map(|index| self.store.read_shard(manifest, index)).collect();
        let shards = unanimous(comm, read.map_err(Failure::from))?;

        let mut buffers: HashMap<&str, Vec<f32>> =
            manifest.buffers.iter().map(|b| (b.name.as_str(), vec![0.0; b.len as usize])).collect();
        for (index, entry) in manifest.shards.iter().enumerate() {
            let owner = index % world;
            let mut held = (owner == rank).then(|| shards[index / world].slices());
            for hold in &entry.holds {
                let target = buffers.get_mut(hold.buffer.as_str()).expect("the manifest agrees with itself");
                let target = &mut target[hold.start as usize..hold.end as usize];
                if let Some(slice) = held.as_mut().and_then(Iterator::next) {
                    target.copy_from_slice(slice.data);
                }
                comm.broadcast(target, owner);
            }
        }
        let device = tch::Device::Cpu;
        let buffer = |name: &str| buffers.get(name).map(|values| Tensor::from_slice(values));
        let state = unanimous(comm, TrainState::restore(settings, network, device, manifest, self.dataset, buffer))?;
        // Only now is it certain that the run goes on from there.
        let rewound = if rank == 0 { self.store.rewind(Some(manifest.step)).map(drop) } else { Ok(()) };
        unanimous(comm, rewound.map_err(Failure::from))?;
        Ok(state)
    }
}

fn config_json(settings: &Settings) -> serde_json::Value {
    serde_json::to_value(settings).expect("settings are plain data")
}
