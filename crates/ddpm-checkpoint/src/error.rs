//! What can go wrong with a checkpoint, classified by what the caller can do about it.

use std::time::SystemTime;

use ddpm_store::explain;

/// The error of a checkpoint operation. "Damaged" and "not found" are facts about the checkpoint; "store" means that
/// its state is unknown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Bytes are missing, altered or contradict each other.
    #[error("{path} in {uri} is damaged: {reason}. Restore it from a copy, or resume from an older step.")]
    Damaged {
        /// The store.
        uri: String,
        /// The object, relative to the store; its name starts with the step.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// None of the store's checkpoints is valid.
    #[error("no checkpoint in {uri} verifies ({reasons}). Restore one from a copy, or start a new run elsewhere.")]
    NoneVerifies {
        /// The store.
        uri: String,
        /// Each step with what is wrong.
        reasons: String,
    },
    /// There is no store at this address.
    #[error("there is no directory {uri}. Give the path of a run, or of its checkpoints.")]
    Absent {
        /// The store.
        uri: String,
    },
    /// The store was read, and the requested object does not exist.
    #[error("{path} is not in {uri}{hint}. Name one that is there, or check the address.")]
    NotFound {
        /// The store.
        uri: String,
        /// What was looked for.
        path: String,
        /// What exists instead; empty, or starting with a colon.
        hint: String,
    },
    /// The store did not respond, refused, or is out of space: whether a checkpoint exists is unknown.
    #[error("the store {uri} failed to {action} {path}: {}.", explain(source.as_ref()))]
    Store {
        /// The store.
        uri: String,
        /// The operation, as a verb.
        action: &'static str,
        /// The object, relative to the store.
        path: String,
        /// The store's own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another writer has committed this step.
    #[error(
        "step {step} in {uri} was committed by another writer (attempt {attempt}). Stop the other run, or give this one \
         its own store."
    )]
    Fenced {
        /// The store.
        uri: String,
        /// The step that both tried to commit.
        step: u64,
        /// The attempt that was committed.
        attempt: String,
    },
    /// Another writer holds the lease.
    #[error(
        "{uri} is being written by {owner}, whose lease runs for another {} s. Wait for that run to end, stop it, or \
         give this run its own store.",
        seconds_until(*until)
    )]
    Held {
        /// The store.
        uri: String,
        /// Who holds the lease, as the holder describes itself.
        owner: String,
        /// When the lease ends unless it is renewed.
        until: SystemTime,
    },
    /// `lease.json` cannot be read, so the holder of the lease is unknown.
    #[error("lease.json in {uri} is damaged: {reason}. Replace the lease once no run is using the store.")]
    DamagedLease {
        /// The store.
        uri: String,
        /// What is wrong.
        reason: String,
    },
    /// This writer's lease expired and another writer took it.
    #[error(
        "the lease on {uri}, generation {generation}, is now held by {owner}. This run can no longer save there: stop \
         it, or give it its own store."
    )]
    LeaseLost {
        /// The store.
        uri: String,
        /// The generation that was lost.
        generation: u64,
        /// Who holds it now.
        owner: String,
    },
    /// This writer's lease was deleted, and perhaps everything else.
    #[error(
        "{} deleted while this run was writing to {uri}, so it can no longer save there. Start it again; if \
         checkpoints are missing, restore them from a copy first.",
        if *emptied { "the store was" } else { "lease.json, by which the run holds the store, was" }
    )]
    Vanished {
        /// The store.
        uri: String,
        /// Whether the run's identity, which is written first and never deleted, is gone too.
        emptied: bool,
    },
    /// The store lets one writer overwrite an object that another one created.
    #[error(
        "the store {uri} does not enforce conditional writes: {reason}. Use one that does, or set checkpoint.exclusive \
         = true to guarantee that only one run ever writes there."
    )]
    Unconditional {
        /// The store.
        uri: String,
        /// What it allowed.
        reason: String,
    },
    /// The object was written by a later version of the program.
    #[error(
        "{path} in {uri} has schema {schema}, but this program reads schemas up to {supported}. Use the version that \
         wrote it, or a later one."
    )]
    Incompatible {
        /// The store.
        uri: String,
        /// The object, relative to the store.
        path: String,
        /// Its schema.
        schema: u32,
        /// The newest schema known here.
        supported: u32,
    },
    /// The address is not one that this build can open, or the environment's settings for its server are invalid.
    #[error("cannot open the store {uri:?}: {reason}.")]
    Address {
        /// The address as given.
        uri: String,
        /// What is wrong, and what to change.
        reason: String,
    },
    /// The caller could not provide the values; nothing was written.
    #[error("the values of {path} cannot be copied: {source}.")]
    NoValues {
        /// What would have been written.
        path: String,
        /// The caller's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The caller's arguments are inconsistent; nothing was written.
    #[error("refused to write {path}: {reason}. This is a bug in the calling program, please report it.")]
    Invalid {
        /// What would have been written or read.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

fn seconds_until(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::now()).map_or(0, |left| left.as_secs_f64().ceil() as u64)
}
