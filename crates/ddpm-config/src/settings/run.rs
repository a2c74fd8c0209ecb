//! All settings together, and `[run]`.

use std::path::Path;

use ddpm_spec::{Features, Labels};
use serde::{Deserialize, Serialize};

use super::data::DataSettings;
use super::diffusion::DiffusionSettings;
use super::model::ModelSettings;
use super::services::{CheckpointSettings, CommSettings, MonitorSettings};
use super::train::{EmaSettings, TrainSettings};
use crate::address::{self, same_place};

/// Everything that defines a run, resolved and of the right types.
///
/// [`Settings::load`](crate::Settings::load) returns it validated. It serialises to TOML (`config.toml`) and to JSON
/// (broadcast to the ranks, kept in checkpoints), and reads back equal from either.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Seed of every random draw: weights, sample order, noise, timesteps. Default 0.
    pub seed: u64,
    /// Where the run keeps its files.
    pub run: RunSettings,
    /// What the run learns from.
    pub data: DataSettings,
    /// The network.
    pub model: ModelSettings,
    /// The diffusion process and its objective.
    pub diffusion: DiffusionSettings,
    /// The optimisation.
    pub train: TrainSettings,
    /// Averaged copies of the weights.
    pub ema: EmaSettings,
    /// How ranks communicate.
    pub comm: CommSettings,
    /// What is saved, where and when.
    pub checkpoint: CheckpointSettings,
    /// What is reported while training.
    pub monitor: MonitorSettings,
}

/// `[run]`: the name and location of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunSettings {
    /// Folder of the run's files. Default `runs/<name>`.
    pub dir: String,
    /// Name shown in logs. Default: the configuration file's name without its extension.
    pub name: String,
}

impl Default for RunSettings {
    fn default() -> Self {
        Self { dir: "runs/run".into(), name: "run".into() }
    }
}

impl Settings {
    /// Where checkpoints go: `checkpoint.uri`, or `<run.dir>/checkpoints`.
    pub fn checkpoint_uri(&self) -> String {
        self.checkpoint.uri.clone().unwrap_or_else(|| format!("{}/checkpoints", self.run.dir))
    }

    /// These settings with every relative path joined to `folder`, as a run records them: they mean the same wherever
    /// they are read.
    pub fn anchored(mut self, folder: &Path) -> Self {
        for path in self.paths_mut() {
            *path = address::anchored(path, folder);
        }
        self
    }

    /// Every path or address in the settings that is set.
    pub fn paths_mut(&mut self) -> impl Iterator<Item = &mut String> {
        let labels = match &mut self.data.labels {
            Labels::Path(path) => Some(path),
            _ => None,
        };
        let data = Some(&mut self.data.path).filter(|path| !path.is_empty());
        let features = match &mut self.monitor.fid_features {
            Features::File(path) => Some(path),
            Features::Pixels => None,
        };
        let (uri, init_from) = (self.checkpoint.uri.as_mut(), self.train.init_from.as_mut());
        let (cache, reference) = (self.data.cache_dir.as_mut(), self.monitor.fid_reference.as_mut());
        [Some(&mut self.run.dir), data, labels, cache, uri, init_from, features, reference].into_iter().flatten()
    }

    /// These settings with the paths of `other` where both may name the same files: a run records absolute paths, and
    /// users type relative ones.
    pub(crate) fn respelt_as(mut self, other: &Self) -> Self {
        if same_place(&self.data.path, &other.data.path) {
            self.data.path.clone_from(&other.data.path);
        }
        if let (Labels::Path(ours), Labels::Path(theirs)) = (&mut self.data.labels, &other.data.labels)
            && same_place(ours, theirs)
        {
            ours.clone_from(theirs);
        }
        if let (Some(ours), Some(theirs)) = (&mut self.train.init_from, &other.train.init_from)
            && same_place(ours, theirs)
        {
            ours.clone_from(theirs);
        }
        self
    }
}
