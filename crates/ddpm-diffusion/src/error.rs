//! The crate's error type.

use ddpm_spec::SpecError;
use tch::TchError;

/// The error of a network's forward pass.
pub type ModelError = Box<dyn std::error::Error + Send + Sync>;

/// Errors of a diffusion process and of its inputs.
#[derive(Debug, thiserror::Error)]
pub enum DiffusionError {
    /// A schedule of no timesteps was asked for.
    #[error("a diffusion process needs at least one timestep and was given none. Set timesteps to 1 or more")]
    NoTimesteps,

    /// A beta outside (0, 1).
    #[error(
        "beta[{index}] is {value}, outside the open interval (0, 1). Change the schedule's ends so that every beta lies inside it"
    )]
    BetaOutOfRange {
        /// The 0-based timestep.
        index: usize,
        /// Its beta.
        value: f64,
    },

    /// A respacing that is not possible.
    #[error(
        "cannot respace {timesteps} timesteps as \"{spec}\": {reason}. Use \"N\" or \"a,b,c\" with no section that keeps more timesteps than it has, or \"ddimN\" with an N that some whole stride gives"
    )]
    Spacing {
        /// The length of the process that is respaced.
        timesteps: usize,
        /// What was asked for.
        spec: String,
        /// What is wrong with it.
        reason: String,
    },

    /// More steps than the process has, or none.
    #[error("{steps} steps were requested of a process of {timesteps} timesteps. Use 1 to {timesteps}")]
    Steps {
        /// The length of the process that is respaced.
        timesteps: usize,
        /// How many were asked for.
        steps: usize,
    },

    /// A list of kept timesteps that is empty, out of order or out of range.
    #[error(
        "the kept timesteps must rise strictly within 0..{timesteps}, and entry {index} does not. Sort them and drop duplicates"
    )]
    KeptTimesteps {
        /// The length of the process that is respaced.
        timesteps: usize,
        /// The first entry at fault.
        index: usize,
    },

    /// A timestep that the process does not have.
    #[error("timestep {t} does not exist in a process of {timesteps} timesteps. Use 0 to {last}", last = timesteps.saturating_sub(1))]
    TimestepOutOfRange {
        /// The 0-based timestep.
        t: usize,
        /// The number of timesteps.
        timesteps: usize,
    },

    /// A specification that cannot be built.
    #[error(transparent)]
    Spec(#[from] SpecError),

    /// Options of a sampler that exclude each other.
    #[error("{problem}. {remedy}")]
    Conflict {
        /// What excludes what.
        problem: &'static str,
        /// What to choose instead.
        remedy: &'static str,
    },

    /// A parameter outside its range.
    #[error("{name} is {value}, outside {range}. Set it inside that range")]
    OutOfRange {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: f64,
        /// Where it may lie.
        range: &'static str,
    },

    /// A model output of the wrong shape.
    #[error(
        "the model returned shape {found:?} where {expected:?} was expected. Check its out_channels: learned_range needs twice the image's channels, the fixed variances just those"
    )]
    ModelShape {
        /// The shape that the settings imply.
        expected: Vec<i64>,
        /// The shape that the model returned.
        found: Vec<i64>,
    },

    /// Sample indices that do not match the batch.
    #[error("{indices} sample indices were given for a batch of {batch}. Give one index for each sample")]
    SampleIndices {
        /// How many indices.
        indices: usize,
        /// How many samples.
        batch: i64,
    },

    /// The network failed.
    #[error("the model failed at timestep {t}. Its own error says why")]
    Model {
        /// The 0-based original timestep.
        t: i64,
        /// The network's error.
        #[source]
        source: ModelError,
    },

    /// libtorch failed.
    #[error("libtorch refused an operation. Check shapes, kinds and devices of the tensors given: {0}")]
    Torch(#[from] TchError),
}
