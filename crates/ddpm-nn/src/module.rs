//! The interface of a network's layers.

use std::fmt::Debug;

use ddpm_spec::ImageShape;
use tch::{TchError, Tensor};

use crate::arena::Weights;
use crate::inputs::Inputs;

/// The layers of a network, as handles into the [`Layout`](crate::Layout) that they were declared in.
pub trait Module: Debug + Send + Sync {
    /// The images that it is applied to.
    fn image(&self) -> ImageShape;

    /// Number of classes that it can be conditioned on (a null class included), if class-conditional.
    fn classes(&self) -> Option<i64> {
        None
    }

    /// What the network computes from timesteps `t` (i64 `[N]`) alone: tables with a row for each, that inference computes
    /// once. None by default.
    ///
    /// # Errors
    /// libtorch fails.
    fn time_tables(&self, _w: &Weights, _t: &Tensor) -> Result<Vec<Tensor>, TchError> {
        Ok(Vec::new())
    }

    /// Number of layers that drop activations, each with its own key in [`DropoutKeys`](crate::DropoutKeys).
    fn dropout_layers(&self) -> usize {
        0
    }

    /// The prediction at `inputs` with the weights `w`: `[B, out_channels, H, W]`; for a classifier, logits
    /// `[B, classes]`. `inputs.x` comes with the channels of a pixel adjacent in memory, in the precision of
    /// [`Network::computing_in`](crate::Network::computing_in).
    ///
    /// `checkpointed` says of each level whether its layers keep only their inputs for backward and are computed again
    /// there; it may be shorter than there are levels, and a module without levels ignores it.
    ///
    /// # Errors
    /// libtorch fails: memory runs out, or the inputs are not what [`Inputs`] says.
    fn forward(&self, w: &Weights, inputs: &Inputs, checkpointed: &[bool]) -> Result<Tensor, TchError>;
}
