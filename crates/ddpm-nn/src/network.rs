//! Any network behind one interface.

use ddpm_spec::{Architecture, ImageShape};
use tch::{Kind, TchError, Tensor};

use crate::NnError;
use crate::arena::{Layout, Weights};
use crate::inputs::Inputs;
use crate::layers::{kind_of_products, products_in};
use crate::module::Module;
use crate::prepared::TimeTables;
use crate::small::SmallUNet;
use crate::unet::{Classifier, UNet};

/// A network without its weights: its layers, the table of its parameters, and how it computes.
#[derive(Debug)]
pub struct Network {
    module: Box<dyn Module>,
    layout: Layout,
    precision: Kind,
    checkpointed: Vec<bool>,
}

impl Network {
    /// Builds a network of this crate.
    ///
    /// # Errors
    /// The architecture cannot be built: [`NnError::Spec`] with the field at fault.
    pub fn new(architecture: Architecture) -> Result<Self, NnError> {
        let mut layout = Layout::default();
        let module: Box<dyn Module> = match architecture {
            Architecture::UNet(spec) => Box::new(UNet::new(spec, &mut layout)?),
            Architecture::Small(spec) => Box::new(SmallUNet::new(spec, &mut layout)?),
            Architecture::Classifier(spec) => Box::new(Classifier::new(spec, &mut layout)?),
        };
        Ok(Self::of(layout, module))
    }

    /// A network of your own: `module`, whose parameters are declared in `layout`. It computes in f32.
    pub fn of(layout: Layout, module: Box<dyn Module>) -> Self {
        Self { module, layout, precision: Kind::Float, checkpointed: Vec::new() }
    }

    /// The same network computing convolutions, attention and what lies between them in `precision`, f32 or bf16.
    /// Weights, gradients, statistics of norms, the time embedding and the result stay in f32.
    pub fn computing_in(self, precision: Kind) -> Self {
        Self { precision, ..self }
    }

    /// The same network keeping less for backward: at each of these levels (highest resolution first; the bottom belongs
    /// to the last) a layer, that is a residual block and the attention after it, keeps only its inputs and is computed
    /// again in backward. Results and gradients are the same, bit for bit. The small U-Net has no such levels.
    pub fn checkpointing(self, levels: &[bool]) -> Self {
        Self { checkpointed: levels.to_vec(), ..self }
    }

    /// Names, shapes and places of the parameters.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Number of classes that it can be conditioned on (a null class included), if class-conditional.
    pub fn classes(&self) -> Option<i64> {
        self.module.classes()
    }

    /// Number of layers that drop activations in training.
    pub fn dropout_layers(&self) -> usize {
        self.module.dropout_layers()
    }

    /// The images that it is applied to.
    pub fn image(&self) -> ImageShape {
        self.module.image()
    }

    /// The kind that it computes in.
    pub fn precision(&self) -> Kind {
        self.precision
    }

    /// These weights for many passes without their gradients: what every pass would make of them, a copy in the precision
    /// of the network and what convolutions read, is made once and kept. They must not change any more.
    ///
    /// # Errors
    /// Memory runs out.
    pub fn prepare(&self, w: &Weights) -> Result<Weights, TchError> {
        let frozen = w.frozen(&self.layout);
        match products_in(self.precision, w.flat().device()) {
            Kind::Float => Ok(frozen),
            kind => frozen.with_copy_in(&self.layout, kind),
        }
    }

    /// These weights for passes at some of `timesteps`: what the network computes from these alone is computed once.
    ///
    /// # Errors
    /// libtorch fails.
    pub fn at_timesteps(&self, w: &Weights, timesteps: &[i64]) -> Result<Weights, TchError> {
        tch::no_grad(|| {
            let t = Tensor::f_from_slice(timesteps)?.f_to_device(w.flat().device())?;
            let tables = self.module.time_tables(w, &t)?;
            if tables.is_empty() {
                return Ok(w.shallow_clone());
            }
            Ok(w.with_times(TimeTables::new(timesteps, tables)?))
        })
    }

    /// Floating-point operations of the forward pass of one image: convolutions, linear maps and attention, with two for
    /// each multiply-add. Counted by applying the network once, on the device of the weights.
    ///
    /// # Errors
    /// libtorch fails.
    pub fn flops(&self, w: &Weights) -> Result<f64, TchError> {
        let device = w.flat().device();
        let [channels, height, width] = self.image().sizes();
        let x = Tensor::f_zeros([1, channels, height, width], (Kind::Float, device))?;
        let t = Tensor::f_zeros([1], (Kind::Int64, device))?;
        let inputs = Inputs { x: &x, t: &t, labels: self.classes().map(|_| &t), dropout: None };
        let (output, counted) = tch_ext::count_operations(|| tch::no_grad(|| self.forward(w, &inputs)))?;
        output.map(|_| counted.flops)
    }

    /// The prediction at `inputs` with the weights `w`: f32 `[B, out_channels, H, W]`; for a classifier, logits
    /// `[B, classes]`.
    ///
    /// # Errors
    /// libtorch fails: memory runs out, or the inputs are not what [`Inputs`] says.
    pub fn forward(&self, w: &Weights, inputs: &Inputs) -> Result<Tensor, TchError> {
        let x = tch_ext::channels_last(inputs.x)?.f_to_kind(self.precision)?;
        let inputs = Inputs { x: &x, ..*inputs };
        let copied;
        let w = match kind_of_products(&x) {
            Kind::Float => w,
            kind if w.has_copy_in(kind) => w,
            kind => {
                copied = w.with_copy_in(self.layout(), kind)?;
                &copied
            }
        };
        self.module.forward(w, &inputs, &self.checkpointed)?.f_to_kind(Kind::Float)
    }
}
