//! What changed between two settings, and whether a resumed run may adopt the change.

use std::fmt::{self, Write as _};

use sha2::{Digest, Sha256};

use crate::Settings;
use crate::keys::flatten;

/// One key that differs between two settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The dotted key.
    pub key: String,
    /// Our value, as JSON; `null` where it is not set.
    pub ours: String,
    /// The other's value, likewise.
    pub theirs: String,
    /// Whether a run may change it when it resumes.
    pub kind: DifferenceKind,
}

/// Whether a run may change a key when it resumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DifferenceKind {
    /// It determines what is learned: refused on resume unless allowed by name.
    Learned,
    /// It determines how, where or for how long: may change freely.
    Free,
}

/// Sections, and keys of other sections, that may change freely. All other keys count as learned, including new ones.
const FREE: &[&str] = &[
    "run",
    "comm",
    "checkpoint",
    "monitor",
    "data.workers",
    "data.on_corrupt",
    "data.cache_dir",
    "data.cache_gb",
    "data.max_megapixels",
    "ema.keep_snapshots",
    "ema.snapshot_every",
    "model.checkpoint_activations",
    "train.steps",
    "train.micro_batch",
    "train.lr",
    "train.warmup_steps",
    "train.lr_schedule",
    "train.weight_decay",
    "train.betas",
    "train.adam_eps",
    "train.grad_clip",
    "train.precision",
    "train.convolutions",
    "train.cuda_graphs",
    "train.device",
    "train.deterministic",
    "train.skip_nonfinite",
];

impl DifferenceKind {
    fn of(key: &str) -> Self {
        let section = key.split('.').next().unwrap_or(key);
        if FREE.contains(&key) || FREE.contains(&section) { Self::Free } else { Self::Learned }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} here, {} there", self.key, self.ours, self.theirs)
    }
}

impl Settings {
    /// The keys in which `other` differs, in alphabetical order. A path of data that is relative in one and absolute in
    /// the other counts as equal.
    pub fn diff(&self, other: &Self) -> Vec<Difference> {
        let other = other.clone().respelt_as(self);
        let differs = flatten(self).into_iter().zip(flatten(&other)).filter(|((_, ours), (_, theirs))| ours != theirs);
        differs
            .map(|((key, ours), (_, theirs))| Difference {
                kind: DifferenceKind::of(&key),
                key,
                ours: ours.to_string(),
                theirs: theirs.to_string(),
            })
            .collect()
    }

    /// SHA-256, in hexadecimal, of the settings' JSON: equal if and only if every key is.
    pub fn fingerprint(&self) -> String {
        let json = serde_json::to_vec(self).expect("settings hold only what JSON can express");
        Sha256::digest(json).iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}
