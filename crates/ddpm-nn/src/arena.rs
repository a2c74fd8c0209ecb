//! The parameter arena: a table of named parameters and the flat buffers they are views of.

use std::ops::Index;
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, TchError, Tensor};
use tch_ext::GradientSinks;

use crate::NnError;
use crate::prepared::{Form, Prepared, TimeTables};

/// A handle to one parameter of a [`Layout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param(usize);

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Uniform in `±1/sqrt(fan_in)`, PyTorch's default for convolutions and linear layers.
    Uniform {
        /// Number of inputs that one output sums over.
        fan_in: i64,
    },
    /// Standard normal, PyTorch's default for embeddings.
    Normal,
    /// Zero: biases of norms, and last layers of residual branches (Ho et al. 2020, appendix B).
    Zeros,
    /// One: scales of norms.
    Ones,
}

/// One parameter's place in the flat buffer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayoutEntry {
    /// Name, as diffusers' UNet2DModel has it.
    pub name: String,
    /// Shape.
    pub shape: Vec<i64>,
    /// First element in the flat buffer.
    pub offset: i64,
    /// How it starts.
    pub init: Init,
}

impl LayoutEntry {
    /// Number of elements.
    pub fn len(&self) -> i64 {
        self.shape.iter().product()
    }

    /// Whether it has no elements at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The table of parameters of a network, in the order its constructor declared them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layout {
    entries: Vec<LayoutEntry>,
    len: i64,
}

impl Layout {
    /// Declares a parameter and returns its handle.
    pub fn declare(&mut self, name: String, shape: &[i64], init: Init) -> Param {
        let entry = LayoutEntry { name, shape: shape.to_vec(), offset: self.len, init };
        self.len += entry.len();
        self.entries.push(entry);
        Param(self.entries.len() - 1)
    }

    /// The parameters, in order; their ranges tile `0..len`.
    pub fn entries(&self) -> &[LayoutEntry] {
        &self.entries
    }

    /// Number of scalars in all parameters together.
    pub fn len(&self) -> i64 {
        self.len
    }

    /// Whether nothing was declared.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn views(&self, flat: &Tensor) -> Vec<Tensor> {
        self.entries.iter().map(|e| flat.narrow(0, e.offset, e.len()).view(e.shape.as_slice())).collect()
    }
}

/// The values of all parameters: one flat f32 buffer and a view per parameter.
#[derive(Debug)]
pub struct Weights {
    flat: Tensor,
    views: Vec<Tensor>,
    /// Where the gradients go, if the weights are trained.
    sinks: Option<Arc<GradientSinks>>,
    /// The views of a copy in another kind, for one forward pass or prepared for many; otherwise none.
    copies: Vec<Tensor>,
    /// What inference makes of the weights once, if they do not change.
    prepared: Option<Prepared>,
    /// What the network computes from the timestep alone, for the timesteps that are known.
    times: Option<TimeTables>,
}

impl Index<Param> for Weights {
    type Output = Tensor;

    fn index(&self, param: Param) -> &Tensor {
        &self.views[param.0]
    }
}

impl Weights {
    /// Views into `flat` (f32, `[layout.len()]`), which the caller may continue to use: they share memory.
    ///
    /// # Errors
    /// `flat` has another length or dtype than the layout needs.
    pub fn over(layout: &Layout, flat: Tensor) -> Result<Self, NnError> {
        if flat.size() != [layout.len()] || flat.kind() != Kind::Float {
            return Err(NnError::Architecture(format!(
                "a weight buffer of {:?} {:?} does not fit a network of {} f32 parameters; use weights of the same architecture",
                flat.kind(),
                flat.size(),
                layout.len()
            )));
        }
        let views = layout.views(&flat);
        Ok(Self { flat, views, sinks: None, copies: Vec::new(), prepared: None, times: None })
    }

    /// Fresh weights: parameter `i` is drawn from a stream keyed by `(seed, i)`, so every rank and device starts equal.
    ///
    /// # Errors
    /// Memory runs out.
    pub fn initialise(layout: &Layout, seed: u64, device: Device) -> Result<Self, NnError> {
        // Allocated by libtorch, which returns an error if memory runs out; a Vec would abort.
        let mut flat = Tensor::f_zeros([layout.len()], (Kind::Float, Device::Cpu))?;
        tch_ext::with_f32_mut(&mut flat, |values| Self::draw(layout, seed, values))?;
        Self::over(layout, flat.f_to_device_(device, Kind::Float, false, false)?)
    }

    fn draw(layout: &Layout, seed: u64, values: &mut [f32]) {
        for (index, entry) in layout.entries().iter().enumerate() {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(index as u64);
            let range = entry.offset as usize..(entry.offset + entry.len()) as usize;
            match entry.init {
                Init::Zeros => {}
                Init::Ones => values[range].fill(1.0),
                Init::Normal => values[range].fill_with(|| rng.sample(rand_distr::StandardNormal)),
                Init::Uniform { fan_in } => {
                    let bound = 1.0 / (fan_in as f32).sqrt();
                    values[range].fill_with(|| rng.random_range(-bound..bound));
                }
            }
        }
    }

    /// Another handle to the same values, gradients and memory.
    pub(crate) fn shallow_clone(&self) -> Self {
        let clone = |tensors: &[Tensor]| tensors.iter().map(Tensor::shallow_clone).collect();
        Self {
            flat: self.flat.shallow_clone(),
            views: clone(&self.views),
            sinks: self.sinks.clone(),
            copies: clone(&self.copies),
            prepared: self.prepared.clone(),
            times: self.times.as_ref().map(TimeTables::shallow_clone),
        }
    }

    /// The same values as long as they do not change, without gradients: what convolutions make of them is kept.
    pub(crate) fn frozen(&self, layout: &Layout) -> Self {
        let flat = self.flat.shallow_clone();
        Self {
            views: layout.views(&flat),
            flat,
            sinks: None,
            copies: Vec::new(),
            prepared: Some(Prepared::default()),
            times: None,
        }
    }

    /// The same weights with tables of what the network computes from the timestep alone.
    pub(crate) fn with_times(&self, times: TimeTables) -> Self {
        Self { times: Some(times), ..self.shallow_clone() }
    }

    /// These tables, if there are any.
    pub(crate) fn times(&self) -> Option<&TimeTables> {
        self.times.as_ref()
    }

    /// A parameter in the form in which inference reads it, in one part or several, made by `make` on first use. None if
    /// the weights may change.
    pub(crate) fn prepared(
        &self,
        param: Param,
        form: Form,
        make: impl FnOnce() -> Result<Vec<Tensor>, TchError>,
    ) -> Result<Option<Vec<Tensor>>, TchError> {
        self.prepared.as_ref().map(|prepared| prepared.get(param.0, form, make)).transpose()
    }

    /// Whether inference keeps what it makes of the weights.
    pub(crate) fn is_prepared(&self) -> bool {
        self.prepared.is_some()
    }

    /// Whether there is a copy in `kind`.
    pub(crate) fn has_copy_in(&self, kind: Kind) -> bool {
        self.copies.first().is_some_and(|copy| copy.kind() == kind)
    }

    /// The same weights with a copy of all of them in `kind`, made by one operation.
    pub(crate) fn with_copy_in(&self, layout: &Layout, kind: Kind) -> Result<Self, TchError> {
        let copies = layout.views(&self.flat.f_to_kind(kind)?);
        let copies = match &self.sinks {
            Some(sinks) => trained(sinks, &copies)?,
            None => copies,
        };
        Ok(Self { copies, ..self.shallow_clone() })
    }

    /// A parameter in `kind`, from the copy if that has it.
    pub(crate) fn in_kind(&self, param: Param, kind: Kind) -> Result<Tensor, TchError> {
        match self.copies.get(param.0) {
            Some(copy) if copy.kind() == kind => Ok(copy.shallow_clone()),
            _ => self[param].f_to_kind(kind),
        }
    }

    /// The flat buffer, f32 `[layout.len()]`.
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }
}

/// The same values, trained: the gradient of each is added to its own sink.
fn trained(sinks: &GradientSinks, values: &[Tensor]) -> Result<Vec<Tensor>, TchError> {
    values.iter().enumerate().map(|(index, values)| sinks.trained(index, values)).collect()
}

/// Gradients of trainable weights: one flat buffer into which backward accumulates.
#[derive(Debug)]
pub struct Gradients {
    flat: Tensor,
    sinks: Arc<GradientSinks>,
}

impl Gradients {
    /// Makes `weights` trainable.
    ///
    /// # Errors
    /// Memory runs out.
    pub fn attach(layout: &Layout, weights: &mut Weights) -> Result<Self, NnError> {
        let flat = weights.flat.f_zeros_like()?;
        let sinks = Arc::new(GradientSinks::new(&layout.views(&flat))?);
        weights.views = trained(&sinks, &weights.views)?;
        weights.sinks = Some(Arc::clone(&sinks));
        Ok(Self { flat, sinks })
    }

    /// Where backward adds the gradient of each parameter, in layout order.
    pub fn sinks(&self) -> &Arc<GradientSinks> {
        &self.sinks
    }

    /// The flat buffer, f32 `[layout.len()]`, in the order of the weights.
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// Sets the gradients to zero in place.
    ///
    /// # Errors
    /// libtorch fails.
    pub fn clear(&mut self) -> Result<(), NnError> {
        self.sinks.flush()?; // what a failed backward pass has left behind
        let _ = self.flat.f_zero_()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        let mut layout = Layout::default();
        layout.declare("a".into(), &[2, 3], Init::Uniform { fan_in: 3 });
        layout.declare("b".into(), &[3], Init::Ones);
        layout.declare("c".into(), &[1, 2], Init::Normal);
        layout
    }

    #[test]
    fn gradients_arrive_in_the_flat_buffer_and_add_up() {
        let layout = layout();
        let mut weights = Weights::initialise(&layout, 0, Device::Cpu).unwrap();
        let mut gradients = Gradients::attach(&layout, &mut weights).unwrap();
        let loss = || (&weights[Param(0)] * 2.0).sum(Kind::Float) + (&weights[Param(2)] * 5.0).sum(Kind::Float);
        loss().backward();
        loss().backward();
        let expected = [4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 0.0, 0.0, 0.0, 10.0, 10.0];
        assert_eq!(Vec::<f32>::try_from(gradients.flat()).unwrap(), expected);
        gradients.clear().unwrap();
        loss().backward();
        assert_eq!(Vec::<f32>::try_from(gradients.flat()).unwrap(), expected.map(|g| g / 2.0));
    }

    #[test]
    fn initial_values_depend_on_the_seed_and_the_parameter_only() {
        let layout = layout();
        let values =
            |seed| Vec::<f32>::try_from(Weights::initialise(&layout, seed, Device::Cpu).unwrap().flat()).unwrap();
        assert_eq!(values(7), values(7));
        assert_ne!(values(7)[..6], values(8)[..6]);
        assert_eq!(values(7)[6..9], [1.0; 3]);
        assert!(values(7)[..6].iter().all(|v| v.abs() <= 1.0 / 3f32.sqrt()));
    }

    #[test]
    fn a_buffer_of_another_length_is_refused() {
        let error = Weights::over(&layout(), Tensor::zeros([12], (Kind::Float, Device::Cpu))).unwrap_err();
        assert!(error.to_string().contains("11 f32 parameters"), "{error}");
    }
}
