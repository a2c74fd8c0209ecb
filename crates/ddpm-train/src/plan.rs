//! The starting point of a training run: settings and the checkpoint to resume from, the same on every rank.

use std::path::Path;

use ddpm_comm::Collective;
use ddpm_config::Settings;
use ddpm_model::Failure;

use crate::checkpointing::{Checkpoint, ResumeFrom, allowed_data_change, select};
use crate::data_record::DataChange;
use crate::program::Program;

/// The starting point of a training run.
pub struct Plan {
    /// The resolved configuration.
    pub settings: Settings,
    /// The checkpoint to resume from.
    pub resume: Option<Checkpoint>,
    /// The newest step in the store, valid or not.
    pub newest: Option<u64>,
    /// How the data set may differ from the one that the checkpoint records.
    pub data_change: DataChange,
    /// The program that trains.
    pub program: Program,
}

impl Plan {
    /// A run that starts at step 0, in a store without checkpoints.
    pub fn fresh(settings: Settings) -> Self {
        Self { settings, resume: None, newest: None, data_change: DataChange::Nothing, program: Program::default() }
    }

    /// A run that starts from the checkpoint that `from` selects; collective over all ranks. `settings` must be the
    /// same on every rank. `allowed` lists the keys that may differ from the checkpoint's (`data` stands for the data
    /// set and all keys of `[data]`). `recorded` is the path of another run's `config.toml`, if the settings were
    /// read from it.
    ///
    /// # Errors
    /// The store fails, or the checkpoint belongs to another run.
    pub fn resuming(
        comm: &dyn Collective,
        settings: Settings,
        from: ResumeFrom,
        allowed: &[String],
        recorded: Option<&Path>,
    ) -> Result<Self, Failure> {
        let (resume, newest) = select(comm, &settings, from, allowed, recorded)?;
        let data_change = allowed_data_change(allowed);
        Ok(Self { settings, resume, newest, data_change, program: Program::default() })
    }

    /// The same run, trained by `program`.
    pub fn by(self, program: Program) -> Self {
        Self { program, ..self }
    }
}
