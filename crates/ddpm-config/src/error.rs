//! Errors in a configuration: each message says what is wrong in one sentence and how to fix it in another.

use std::io;
use std::path::PathBuf;

use ddpm_spec::SpecError;

/// An error in a configuration. Keys are dotted (`train.lr`); `origin` is the file or the `--set` a value came from.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is neither on disk nor a preset.
    #[error("no configuration file or preset `{given}`{wanted_by}. {hint}")]
    NotFound {
        /// What was asked for.
        given: String,
        /// The file whose `extends` asked for it, or nothing.
        wanted_by: String,
        /// The nearest preset and all of them.
        hint: String,
    },
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}. Check that it is a readable text file.", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The text is not TOML.
    #[error("{origin} is not valid TOML: {reason}. Correct the text there.")]
    Syntax {
        /// The file or the `--set`.
        origin: String,
        /// The parser's message, with line and column in a file.
        reason: String,
    },
    /// A `--set` argument that is not `a.b=value`.
    #[error("--set {text} does not name a key and a value. Write it as --set a.b=value, such as --set train.lr=2e-4.")]
    Override {
        /// The argument.
        text: String,
    },
    /// Files that extend each other.
    #[error("configuration files extend each other in a circle: {chain}. Remove `extends` from one of them.")]
    Cycle {
        /// The files, from the first to its repetition.
        chain: String,
    },
    /// A key that does not exist.
    #[error("unknown key `{key}` in {origin}. {hint}")]
    UnknownKey {
        /// The dotted key.
        key: String,
        /// Where it was written.
        origin: String,
        /// The nearest name, or the names there are.
        hint: String,
    },
    /// A word that is not among the key's choices.
    #[error("`{key}` in {origin} is {found}, which is not one of {choices}. {hint}")]
    UnknownValue {
        /// The dotted key.
        key: String,
        /// Where it was written.
        origin: String,
        /// The value, as TOML.
        found: String,
        /// The choices.
        choices: String,
        /// The nearest one, if any is near.
        hint: String,
    },
    /// A value of the wrong type.
    #[error("`{key}` in {origin} is {found}, but must be {wanted}. {hint}")]
    WrongType {
        /// The dotted key.
        key: String,
        /// Where it was written.
        origin: String,
        /// The type it must have.
        wanted: String,
        /// The value, as TOML.
        found: String,
        /// How to write it.
        hint: String,
    },
    /// The only key without a default is missing.
    #[error("`data.kind` is not set in {origin}. Set it to \"idx\", \"folder\" or \"synthetic\".")]
    Missing {
        /// The file that was loaded.
        origin: String,
    },
    /// A value out of range, or in conflict with another.
    #[error("{0}.")]
    Invalid(#[from] SpecError),
}
