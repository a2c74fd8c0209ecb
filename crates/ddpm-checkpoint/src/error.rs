//! What can go wrong with a checkpoint, told apart by what the caller can do about it.

use std::time::SystemTime;

use crate::trouble::explain;

/// A failure of a checkpoint operation. "Damaged" and "not found" are facts about the checkpoint; "store" means that
/// nothing is known about it.
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
        /// What does not hold.
        reason: String,
    },
    /// Not one of the store's checkpoints verifies.
    #[error("no checkpoint in {uri} verifies ({reasons}). Restore one from a copy, or start a new run elsewhere.")]
    NoneVerifies {
        /// The store.
        uri: String,
        /// Each step with what does not hold.
        reasons: String,
    },
    /// There is no store at this address.
    #[error("there is no directory {uri}. Give the path of a run, or of its checkpoints.")]
    Absent {
        /// The store.
        uri: String,
    },
    /// The store was read, and what was asked for is not there.
    #[error("{path} is not in {uri}{hint}. Name one that is there, or check the address.")]
    NotFound {
        /// The store.
        uri: String,
        /// What was looked for.
        path: String,
        /// What is there instead; empty, or starting with a colon.
        hint: String,
    },
    /// The store did not answer, refused, or is out of space: whether a checkpoint is there cannot be told.
    #[error("the store {uri} failed to {action} {path}: {}.", explain(source.as_ref()))]
    Store {
        /// The store.
        uri: String,
        /// What was tried, as a verb.
        action: &'static str,
        /// The object, relative to the store.
        path: String,
        /// The store's own words.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another writer has committed this step.
    #[error(
        "step {step} in {uri} was committed by another writer (attempt {attempt}). Stop the other run, or give this one \
         a store of its own."
    )]
    Fenced {
        /// The store.
        uri: String,
        /// The step both wanted.
        step: u64,
        /// The attempt whose manifest stands.
        attempt: String,
    },
    /// Another writer's lease is alive.
    #[error(
        "{uri} is being written by {owner}, whose lease runs for another {} s. Wait for it to end, stop it, or give \
         this run a store of its own; if it was killed, `ddpm-dist checkpoints unlock {uri}` frees the store.",
        seconds_until(*until)
    )]
    Held {
        /// The store.
        uri: String,
        /// Who holds the lease, in its own words.
        owner: String,
        /// When the lease ends unless it is renewed.
        until: SystemTime,
    },
    /// This writer's lease ran out and another took it.
    #[error(
        "the lease on {uri}, generation {generation}, is now held by {owner}. This run can save nothing more there: \
         stop it, or give it a store of its own."
    )]
    LeaseLost {
        /// The store.
        uri: String,
        /// The generation that was lost.
        generation: u64,
        /// Who holds it now.
        owner: String,
    },
    /// The lease of this writer was deleted, and perhaps all else.
    #[error(
        "{} deleted while this run was writing to {uri}, so it can save nothing more there. Start it again; if \
         checkpoints are gone that are wanted, restore them from a copy first.",
        if *emptied { "the store was" } else { "lease.json, by which the run holds the store, was" }
    )]
    Vanished {
        /// The store.
        uri: String,
        /// Whether the run's identity is gone too, which is written before all else and never deleted.
        emptied: bool,
    },
    /// The store lets one writer overwrite what another created.
    #[error(
        "the store {uri} does not enforce conditional writes: {reason}. Use one that does, or set checkpoint.exclusive \
         = true to promise that only one run ever writes there."
    )]
    Unconditional {
        /// The store.
        uri: String,
        /// What it let happen.
        reason: String,
    },
    /// The object was written by a later version of the program.
    #[error(
        "{path} in {uri} has schema {schema}, this program reads up to {supported}. Use the version that wrote \
         it, or a later one."
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
    /// The address names no store that this build can open, or the environment says nothing sensible of its server.
    #[error("cannot open the store {uri:?}: {reason}.")]
    Address {
        /// The address as given.
        uri: String,
        /// Why not, and what to change.
        reason: String,
    },
    /// The caller's values contradict each other; nothing was written.
    #[error("refused to write {path}: {reason}. This is a fault in the calling program, please report it.")]
    Invalid {
        /// What would have been written or read.
        path: String,
        /// What does not hold.
        reason: String,
    },
}

fn seconds_until(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::now()).map_or(0, |left| left.as_secs_f64().ceil() as u64)
}
