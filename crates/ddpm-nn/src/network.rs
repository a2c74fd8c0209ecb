//! Any of the networks behind one interface.

use ddpm_spec::{Architecture, ImageShape};
use tch::{Kind, TchError, Tensor};

use crate::NnError;
use crate::arena::{Layout, Weights};
use crate::inputs::Inputs;
use crate::small::SmallUNet;
use crate::unet::{Classifier, UNet};

/// A network without its numbers, and the table of its parameters.
#[derive(Debug)]
pub struct Network {
    shape: Shape,
    layout: Layout,
    precision: Kind,
    checkpointed: Vec<bool>,
}

#[derive(Debug)]
enum Shape {
    UNet(Box<UNet>),
    Small(Box<SmallUNet>),
    Classifier(Box<Classifier>),
}

impl Network {
    /// Builds the network.
    ///
    /// # Errors
    /// The architecture contradicts itself.
    pub fn new(architecture: Architecture) -> Result<Self, NnError> {
        let mut layout = Layout::default();
        let shape = match architecture {
            Architecture::UNet(config) => Shape::UNet(Box::new(UNet::new(config, &mut layout)?)),
            Architecture::Small(config) => Shape::Small(Box::new(SmallUNet::new(config, &mut layout)?)),
            Architecture::Classifier(config) => Shape::Classifier(Box::new(Classifier::new(config, &mut layout)?)),
        };
        Ok(Self { shape, layout, precision: Kind::Float, checkpointed: Vec::new() })
    }

    /// The same network computing convolutions, attention and what lies between them in `precision`, f32 or bf16.
    /// Weights, gradients, statistics of norms, the time embedding and the result stay in f32.
    pub fn computing_in(self, precision: Kind) -> Self {
        Self { precision, ..self }
    }

    /// The same network keeping less for backward: at each of these levels (highest resolution first; the bottom goes with
    /// the last) a layer, that is a residual block and the attention after it, keeps its inputs only and is computed again
    /// in backward. Results and gradients are the same, bit for bit. The small U-Net has no such levels.
    pub fn checkpointing(self, levels: &[bool]) -> Self {
        Self { checkpointed: levels.to_vec(), ..self }
    }

    /// Names, shapes and places of the parameters.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Number of classes it can be asked for (a null class included), if class-conditional.
    pub fn classes(&self) -> Option<i64> {
        match &self.shape {
            Shape::UNet(net) => net.config().classes,
            Shape::Small(_) | Shape::Classifier(_) => None,
        }
    }

    /// The images that it is applied to.
    pub fn image(&self) -> ImageShape {
        match &self.shape {
            Shape::UNet(net) => net.config().image,
            Shape::Small(net) => net.config().image,
            Shape::Classifier(net) => net.config().encoder.image,
        }
    }

    /// The prediction at `inputs` with the numbers `w`: f32 `[B, out_channels, H, W]`; of a classifier, logits
    /// `[B, classes]`.
    ///
    /// # Errors
    /// libtorch fails: memory runs out, or the inputs are not what [`Inputs`] says.
    pub fn forward(&self, w: &Weights, inputs: &Inputs) -> Result<Tensor, TchError> {
        let x = tch_ext::channels_last(inputs.x)?.f_to_kind(self.precision)?;
        let inputs = &Inputs { x: &x, ..*inputs };
        let output = match &self.shape {
            Shape::UNet(net) => net.forward(w, inputs, &self.checkpointed)?,
            Shape::Small(net) => net.forward(w, inputs)?,
            Shape::Classifier(net) => net.forward(w, inputs, &self.checkpointed)?,
        };
        output.f_to_kind(Kind::Float)
    }
}
