//! AdamW over the flat buffers, and clipping by the global norm.

use tch::{Kind, Tensor};
use tch_ext::{AdamWBuffers, AdamWOptions, fused_adamw};

use crate::NnError;

/// AdamW (Loshchilov & Hutter 2019); with `weight_decay` 0 it is Adam (Kingma & Ba 2015).
#[derive(Debug)]
pub struct AdamW {
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    steps: u64,
    betas: [f64; 2],
    weight_decay: f64,
    eps: f64,
}

/// The moments of the gradients that were saved with a run.
#[derive(Debug)]
pub struct Moments {
    /// First moments, f32 flat.
    pub exp_avg: Tensor,
    /// Second moments, f32 flat.
    pub exp_avg_sq: Tensor,
    /// Number of steps taken.
    pub steps: u64,
}

impl AdamW {
    /// Fresh moments for `weights` (f32 flat).
    ///
    /// # Errors
    /// Memory runs out.
    pub fn new(weights: &Tensor, betas: [f64; 2], weight_decay: f64, eps: f64) -> Result<Self, NnError> {
        let zeros = || weights.detach().f_zeros_like();
        let moments = Moments { exp_avg: zeros()?, exp_avg_sq: zeros()?, steps: 0 };
        Self::continued(weights, moments, betas, weight_decay, eps)
    }

    /// Continues with saved moments, which are moved to the device of `weights` (f32 flat), and not copied if they are
    /// there.
    ///
    /// # Errors
    /// The moments do not fit the weights, or memory runs out.
    pub fn continued(
        weights: &Tensor,
        moments: Moments,
        betas: [f64; 2],
        weight_decay: f64,
        eps: f64,
    ) -> Result<Self, NnError> {
        let Moments { exp_avg, exp_avg_sq, steps } = moments;
        for moment in [&exp_avg, &exp_avg_sq] {
            if moment.size() != weights.size() || moment.kind() != weights.kind() {
                return Err(NnError::Architecture(format!(
                    "moments of {:?} {:?} do not fit {} weights; resume with the network that was saved",
                    moment.kind(),
                    moment.size(),
                    weights.numel()
                )));
            }
        }
        let device = weights.device();
        let (exp_avg, exp_avg_sq) = (exp_avg.f_to_device(device)?, exp_avg_sq.f_to_device(device)?);
        Ok(Self { exp_avg, exp_avg_sq, steps, betas, weight_decay, eps })
    }

    /// First moments, f32 flat.
    pub fn exp_avg(&self) -> &Tensor {
        &self.exp_avg
    }

    /// Second moments, f32 flat.
    pub fn exp_avg_sq(&self) -> &Tensor {
        &self.exp_avg_sq
    }

    /// Number of steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Updates `weights` in place from `gradients` (both f32 flat) at learning rate `lr`.
    ///
    /// # Errors
    /// The buffers do not fit each other, or memory runs out.
    pub fn step(&mut self, weights: &Tensor, gradients: &Tensor, lr: f64) -> Result<(), NnError> {
        self.steps += 1;
        let step = Tensor::f_full([0i64; 0], self.steps as f64, (Kind::Float, weights.device()))?;
        let buffers = AdamWBuffers {
            param: weights,
            grad: gradients,
            exp_avg: &self.exp_avg,
            exp_avg_sq: &self.exp_avg_sq,
            step: &step,
        };
        let options = AdamWOptions { lr, betas: self.betas, weight_decay: self.weight_decay, eps: self.eps };
        Ok(fused_adamw(&buffers, options)?)
    }
}

/// Scales `gradients` (f32 flat), whose norm is `norm`, to a norm of at most `max_norm`; 0 turns clipping off. A norm that is not
/// finite leaves them as they are: the step must be skipped.
///
/// # Errors
/// libtorch fails.
pub fn clip(gradients: &mut Tensor, norm: f64, max_norm: f64) -> Result<(), NnError> {
    if max_norm > 0.0 && norm.is_finite() && norm > max_norm {
        // The same guard against a zero norm as in torch.nn.utils.clip_grad_norm_.
        let _ = gradients.f_mul_scalar_(max_norm / (norm + 1e-6))?;
    }
    Ok(())
}
