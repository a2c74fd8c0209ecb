//! Object names and attempts.

use std::{fmt, str::FromStr, time::SystemTime};

use object_store::path::Path;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

/// The folder of the committed manifests.
pub(crate) const MANIFESTS: &str = "manifest";
/// The folder of the manifests taken out of the history.
pub(crate) const ASIDE: &str = "aside";
/// The folder of the shards.
pub(crate) const SHARDS: &str = "ckpt";

/// A globally unique string, which identifies the writer in [`Manifest::nonce`](crate::Manifest::nonce).
pub fn nonce() -> String {
    Ulid::generate().to_string()
}

/// One attempt at saving one step, the same on every rank: rank 0 generates it and sends its 26 characters to the
/// others. Two attempts at one step never share an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Attempt(Ulid);

impl Attempt {
    /// Generates a new attempt.
    pub fn generate() -> Self {
        Self(Ulid::generate())
    }

    /// When the attempt was generated, by the clock of rank 0.
    pub fn time(&self) -> SystemTime {
        self.0.datetime()
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Attempt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ulid::from_string(text).map(Self).map_err(|e| format!("{text:?} is not a ULID: {e}"))
    }
}

impl TryFrom<String> for Attempt {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Attempt> for String {
    fn from(attempt: Attempt) -> Self {
        attempt.to_string()
    }
}

pub(crate) fn run_path() -> Path {
    Path::from("run.json")
}

pub(crate) fn manifest_path(step: u64) -> Path {
    Path::from(format!("{MANIFESTS}/{step:012}.json"))
}

pub(crate) fn lease_path() -> Path {
    Path::from("lease.json")
}

/// Where probes are, which exist for a moment only.
pub(crate) const PROBES: &str = "probe";

/// A unique name for a probe.
pub(crate) fn probe_path() -> Path {
    Path::from(format!("{PROBES}/{}", Ulid::generate()))
}

/// Where a rewind moves a manifest: a unique name each time, so that nothing is ever overwritten.
pub(crate) fn aside_path(step: u64) -> Path {
    Path::from(format!("{ASIDE}/{step:012}-{}.json", Ulid::generate()))
}

pub(crate) fn attempt_folder(step: u64, attempt: &Attempt) -> Path {
    Path::from(format!("{SHARDS}/{step:012}-{attempt}"))
}

pub(crate) fn shard_path(step: u64, attempt: &Attempt, rank: usize, world: usize) -> Path {
    Path::from(format!("{}/r{rank:05}-of-{world:05}.safetensors", attempt_folder(step, attempt)))
}

/// Parses the step from a manifest's file name; `None` for an unrelated file.
pub(crate) fn step_of_manifest(name: &str) -> Option<u64> {
    let step = name.strip_suffix(".json")?.parse().ok()?;
    (name == format!("{step:012}.json")).then_some(step)
}

/// Parses the step and attempt from an attempt folder's name; `None` for an unrelated folder.
pub(crate) fn attempt_of_folder(name: &str) -> Option<(u64, Attempt)> {
    let (step, attempt) = name.split_once('-')?;
    let (step, attempt) = (step.parse().ok()?, attempt.parse().ok()?);
    (name == format!("{step:012}-{attempt}")).then_some((step, attempt))
}

/// Parses the file name of a manifest that was set aside: its step, and when it was set aside. `None` for an unrelated
/// file.
pub(crate) fn set_aside_of(name: &str) -> Option<(u64, SystemTime)> {
    let (step, ulid) = attempt_of_folder(name.strip_suffix(".json")?)?;
    Some((step, ulid.time()))
}
