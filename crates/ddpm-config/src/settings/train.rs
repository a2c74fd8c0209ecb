//! `[train]` and `[ema]`.

use ddpm_spec::{Convolutions, CudaGraphs, Device, LrShape, Precision};
use serde::{Deserialize, Serialize};

use super::optional::zero_is_none;

/// `[train]`: the optimisation (AdamW).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainSettings {
    /// Optimizer steps of the whole run, at least 1. Default 10000.
    pub steps: u64,
    /// The model whose weights the run starts from: a run, a run at a step, or a diffusers directory; absent or "":
    /// random weights.
    #[serde(deserialize_with = "zero_is_none")]
    pub init_from: Option<String>,
    /// Draw the tensors that do not fit that model's anew, by name, instead of refusing to start. Default false.
    pub init_skip_mismatched: bool,
    /// Images per step over all ranks. Default 128.
    pub global_batch: usize,
    /// Images per forward pass on each rank, to bound memory; absent or 0: the rank's whole slice.
    #[serde(deserialize_with = "zero_is_none")]
    pub micro_batch: Option<usize>,
    /// Learning rate after warm-up. Default 2e-4.
    pub lr: f64,
    /// Steps over which the learning rate rises linearly to `lr`; 0: no warm-up. Default 0.
    pub warmup_steps: u64,
    /// Learning rate after warm-up. Default `constant`.
    pub lr_schedule: LrShape,
    /// Decoupled weight decay. Default 0.
    pub weight_decay: f64,
    /// Decay rates of Adam's two moments. Default `[0.9, 0.999]`.
    pub betas: [f64; 2],
    /// Added to Adam's denominator. Default 1e-8.
    pub adam_eps: f64,
    /// Largest global gradient norm; 0 turns clipping off. Default 1.
    pub grad_clip: f64,
    /// Arithmetic of the network; weights and optimizer stay fp32. Default `fp32`.
    pub precision: Precision,
    /// How the CPU computes 3x3 convolutions. Default `auto`.
    pub convolutions: Convolutions,
    /// Where the network computes. Default `auto`.
    pub device: Device,
    /// Whether a training pass is recorded once for a GPU, which gets it as a whole from then on. Default `auto`.
    pub cuda_graphs: CudaGraphs,
    /// Whether to use only operations that give the same bits each time on a GPU, even if others are faster; those on
    /// the CPU always do. Default true.
    pub deterministic: bool,
    /// Number of consecutive non-finite gradients that ends the run; the steps of fewer are skipped. Default 10.
    pub skip_nonfinite: u32,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            steps: 10_000,
            init_from: None,
            init_skip_mismatched: false,
            global_batch: 128,
            micro_batch: None,
            lr: 2e-4,
            warmup_steps: 0,
            lr_schedule: LrShape::Constant,
            weight_decay: 0.0,
            betas: [0.9, 0.999],
            adam_eps: 1e-8,
            grad_clip: 1.0,
            precision: Precision::Fp32,
            convolutions: Convolutions::Auto,
            device: Device::Auto,
            cuda_graphs: CudaGraphs::Auto,
            deterministic: true,
            skip_nonfinite: 10,
        }
    }
}

/// `[ema]`: exponential moving averages of the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmaSettings {
    /// Decay per update, one averaged copy each; may be empty. Default `[0.9999]`.
    pub rates: Vec<f64>,
    /// Steps between updates. Default 1.
    pub every: u64,
    /// After n updates the decay is min(rate, (1 + n)/(10 + n)), so that a short run is not dominated by its initial
    /// weights. Default true.
    pub warmup: bool,
    /// Widths of power-function averages, relative to the steps so far, one averaged copy each; from two of them any
    /// width in between can be reconstructed after training (Karras et al. 2024). Default none.
    pub widths: Vec<f64>,
    /// Steps between stored snapshots of these averages; absent or 0: `checkpoint.every`.
    #[serde(deserialize_with = "zero_is_none")]
    pub snapshot_every: Option<u64>,
    /// Number of snapshots to keep: beyond it every other one is deleted. Default 64.
    pub keep_snapshots: u64,
}

impl Default for EmaSettings {
    fn default() -> Self {
        Self {
            rates: vec![0.9999],
            every: 1,
            warmup: true,
            widths: Vec::new(),
            snapshot_every: None,
            keep_snapshots: 64,
        }
    }
}
