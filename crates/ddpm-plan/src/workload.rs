//! What a run computes, exchanges and stores.

/// What averages gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// NCCL, between GPUs.
    Nccl,
    /// MPI, in host memory. What copying gradients there from a GPU costs is not counted.
    Mpi,
}

/// What a run computes, exchanges and stores.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Trained parameters.
    pub parameters: u64,
    /// Moving averages of them.
    pub averages: usize,
    /// Floating-point operations of training on one image: forward and backward.
    pub flops_per_image: f64,
    /// Bytes of each bucket of gradients, in the order in which backward completes them.
    pub buckets: Vec<f64>,
    /// Whether buckets are averaged while backward computes the next ones.
    pub overlaps: bool,
    /// What averages them.
    pub transport: Transport,
    /// Images of a step, over all ranks.
    pub global_batch: u64,
    /// Passes of each rank in a step, of which the last one overlaps with averaging.
    pub passes: u64,
    /// Images of the data set.
    pub images: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Memory of a rank, in MB.
    pub memory_mb: f64,
    /// Steps between saves, as configured.
    pub save_every: u64,
    /// Seconds from a failure until the run has started again, without reading the checkpoint.
    pub restart_s: f64,
}

/// Bytes of a value of weights, gradients, moments and averages.
pub(crate) const VALUE: f64 = 4.0;

impl Workload {
    /// Bytes of a checkpoint: weights, two moments, and the averages.
    pub(crate) fn checkpoint_bytes(&self) -> f64 {
        VALUE * self.parameters as f64 * (3 + self.averages) as f64
    }

    /// Bytes that the end of a step moves between a GPU and its memory: clearing the gradients, the norms of the rank's
    /// share and of the average, clipping, the optimizer, and the averages.
    pub(crate) fn update_bytes(&self) -> f64 {
        let passes = 1 + 2 + 2 + 7 + 3 * self.averages;
        VALUE * self.parameters as f64 * passes as f64
    }
}
