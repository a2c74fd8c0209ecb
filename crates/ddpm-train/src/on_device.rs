//! What a pass reads besides the weights: a micro-batch on its device.

use ddpm_model::images::upload;
use ddpm_nn::DropoutKeys;
use tch::{Device, TchError, Tensor};

use crate::task::{MicroBatch, Task};

/// A micro-batch of B images on its device.
pub struct OnDevice {
    /// `[B, C, H, W]`: u8, or f32 in `[-1, 1]`.
    pub images: Tensor,
    /// Standard normal, f32 `[B, C, H, W]`.
    pub noise: Tensor,
    /// Timesteps in `0..T`, i64 `[B]`.
    pub t: Tensor,
    /// The weight of each sample's loss, f32 `[B]`.
    pub loss_weights: Tensor,
    /// Classes, i64 `[B]`, if the objective takes them.
    pub labels: Option<Tensor>,
    /// Keys of the dropout masks, if the network uses dropout.
    pub dropout: Option<DropoutKeys>,
}

impl OnDevice {
    /// Copies a micro-batch to `device`; the host does not wait. On the CPU, images, noise and keys keep their memory.
    pub fn upload(task: &Task, micro: &MicroBatch, device: Device) -> Result<Self, TchError> {
        let t: Vec<i64> = micro.draws.iter().map(|draw| draw.t as i64).collect();
        let loss_weights: Vec<f32> = micro.draws.iter().map(|draw| draw.weight as f32).collect();
        let labels = task.objective.takes_labels(&task.network).then_some(micro.labels);
        Ok(Self {
            images: upload(&micro.images, device)?,
            noise: upload(&micro.noise, device)?,
            t: upload(&Tensor::f_from_slice(&t)?, device)?,
            loss_weights: upload(&Tensor::f_from_slice(&loss_weights)?, device)?,
            labels: labels.map(|labels| upload(&Tensor::f_from_slice(labels)?, device)).transpose()?,
            dropout: micro.dropout.as_ref().map(|keys| keys.to_device(device)).transpose()?,
        })
    }

    /// The same values in memory of their own.
    pub fn copied(&self) -> Result<Self, TchError> {
        Ok(Self {
            images: copied(&self.images)?,
            noise: copied(&self.noise)?,
            t: copied(&self.t)?,
            loss_weights: copied(&self.loss_weights)?,
            labels: self.labels.as_ref().map(copied).transpose()?,
            dropout: self.dropout.as_ref().map(DropoutKeys::copied).transpose()?,
        })
    }

    /// Replaces all values by those of another micro-batch of the same shape, in the same memory.
    pub fn renew(&mut self, from: &Self) -> Result<(), TchError> {
        self.images.f_copy_(&from.images)?;
        self.noise.f_copy_(&from.noise)?;
        self.t.f_copy_(&from.t)?;
        self.loss_weights.f_copy_(&from.loss_weights)?;
        if let (Some(labels), Some(from)) = (&mut self.labels, &from.labels) {
            labels.f_copy_(from)?;
        }
        if let (Some(keys), Some(from)) = (&mut self.dropout, &from.dropout) {
            keys.renew(from)?;
        }
        Ok(())
    }
}

/// The same values in memory of their own.
pub fn copied(tensor: &Tensor) -> Result<Tensor, TchError> {
    tensor.f_to_device_(tensor.device(), tensor.kind(), false, true)
}
