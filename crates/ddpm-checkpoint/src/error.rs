//! What can go wrong with a checkpoint, told apart by what the caller can do about it.

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
    #[error(
        "the store {uri} failed to {action} {path}: {source}. Check that it is reachable, grants access and has space."
    )]
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
    /// The address names no store that this build can open.
    #[error("cannot open the store {uri:?}: {reason}. Give a directory, such as `runs/mnist/checkpoints`.")]
    Address {
        /// The address as given.
        uri: String,
        /// Why not.
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
