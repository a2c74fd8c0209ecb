//! Why nothing can be predicted: one sentence about the problem, with the fix.

/// Why nothing can be predicted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A machine that is not in the table.
    #[error("there is no `{name}` in the table of machines; give one of {known}")]
    UnknownGpu {
        /// As given.
        name: String,
        /// The names in the table.
        known: String,
    },
    /// A GPU without bf16 products.
    #[error("the {gpu} has no bf16 products; set train.precision to \"fp32\" or \"auto\"")]
    NoBf16 {
        /// Its name.
        gpu: &'static str,
    },
    /// A CPU whose speed is not given.
    #[error("the speed of a CPU is in no table; give --tflops, the `tflops` that `ddpm-dist bench step` reports there")]
    NoSpeed,
}
