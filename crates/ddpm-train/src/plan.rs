//! What a training starts from: settings and the checkpoint to resume from, the same on every rank.

use std::path::Path;

use ddpm_comm::Collective;
use ddpm_config::Settings;
use ddpm_model::Failure;

use crate::checkpointing::{Checkpoint, ResumeFrom, allows_other_data, select};

/// What a training starts from.
pub struct Plan {
    /// The resolved configuration.
    pub settings: Settings,
    /// The checkpoint to resume from.
    pub resume: Option<Checkpoint>,
    /// The newest step in the store, valid or not.
    pub newest: Option<u64>,
    /// Whether a resume may continue with another data set.
    pub allows_other_data: bool,
}

impl Plan {
    /// A run from step 0, in a store that holds no checkpoint.
    pub fn fresh(settings: Settings) -> Self {
        Self { settings, resume: None, newest: None, allows_other_data: false }
    }

    /// A run from the checkpoint that `from` selects, all ranks together. `settings` are the same on every rank; `allowed`
    /// are the keys that may differ from the checkpoint's (`data`: the data set, and all keys of `[data]`); `recorded` is the
    /// `config.toml` that another run wrote, if that is where the settings come from.
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
        let allows_other_data = allowed.iter().any(|name| allows_other_data(name));
        Ok(Self { settings, resume, newest, allows_other_data })
    }
}
