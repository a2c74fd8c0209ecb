//! Forward and backward passes, which a GPU may get as a CUDA graph: one pass is recorded, and replayed from then on, so
//! that the host does not enqueue each of its operations again.

use std::mem;

use ddpm_config::{CudaGraphs, Settings};
use ddpm_model::{Error, Place};
use ddpm_nn::Gradients;
use tch::{Kind, Tensor};
use tch_ext::{Graph, attempt};

use crate::objective::Terms;
use crate::on_device::{OnDevice, copied};

/// Steps before a pass is recorded, in which libraries choose algorithms and allocate memory of their own.
const EAGER_STEPS: u32 = 3;

/// How far the gradient and the losses of a replay may be from those of the same pass enqueued by operations, relative to
/// their norms. They are equal where operations are deterministic; otherwise atomic additions differ in the last digits.
const TOLERANCE: f64 = 1e-3;

/// A pass's place among those of its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The first one: the gradients are zero.
    First,
    /// A later one.
    Later,
    /// The last one, during whose backward the gradients are averaged, by hooks that a replay would not run.
    Averaged,
}

impl Turn {
    /// The turn of pass number `index` of `count`; `overlaps` is whether gradients are averaged during the last.
    pub fn of(index: usize, count: usize, overlaps: bool) -> Self {
        match index {
            _ if overlaps && index + 1 == count => Self::Averaged,
            0 => Self::First,
            _ => Self::Later,
        }
    }
}

/// How the passes of a run are computed.
pub struct Passes(Stage);

enum Stage {
    /// Operation by operation.
    Eager,
    /// So for this many more steps; then one is recorded.
    Waiting(u32),
    /// So, but one is recorded, to be compared in the next step, when the weights have changed.
    Recorded(Recording),
    /// Replayed.
    Replayed(Recording),
}

/// A recorded pass.
struct Recording {
    graph: Graph,
    /// The memory from which it reads.
    inputs: OnDevice,
    /// The memory to which it writes its terms, f32 `[Terms::ROWS, B]`.
    terms: Tensor,
}

impl Passes {
    /// As `settings` say for a run at `place`; `overlaps` is whether gradients are averaged during the last pass of each
    /// step, of which each rank has `count`. On the CPU nothing is recorded.
    pub fn new(settings: &Settings, place: Place, count: usize, overlaps: bool) -> Self {
        if !place.is_gpu() || settings.train.cuda_graphs == CudaGraphs::Off {
            return Self(Stage::Eager);
        }
        if overlaps && count == 1 {
            tracing::info!(
                "passes are not recorded as a CUDA graph: gradients are averaged during the only pass of each step; compare \
                 with comm.overlap = false, and with half of train.micro_batch"
            );
            return Self(Stage::Eager);
        }
        Self(Stage::Waiting(EAGER_STEPS))
    }

    /// Runs a pass: `compute` adds to `gradients` and returns the terms `[Terms::ROWS, B]`, and must depend on nothing that
    /// changes but the values of the weights and of its inputs. All passes have the same number of images.
    pub fn run(
        &mut self,
        gradients: &mut Gradients,
        inputs: &OnDevice,
        turn: Turn,
        mut compute: impl FnMut(&OnDevice) -> Result<Tensor, Error>,
    ) -> Result<Tensor, Error> {
        let (stage, terms) = match (mem::replace(&mut self.0, Stage::Eager), turn) {
            (Stage::Waiting(0), Turn::First) => record(gradients, inputs, &mut compute)?,
            (Stage::Waiting(steps), Turn::First) => (Stage::Waiting(steps - 1), compute(inputs)?),
            (Stage::Recorded(recording), Turn::First) => verify(recording, gradients, inputs, &mut compute)?,
            (Stage::Replayed(mut recording), Turn::First | Turn::Later) => {
                let terms = recording.replay(inputs, &mut compute)?;
                (Stage::Replayed(recording), terms)
            }
            (stage, _) => (stage, compute(inputs)?),
        };
        self.0 = stage;
        Ok(terms)
    }
}

type Compute<'a> = dyn FnMut(&OnDevice) -> Result<Tensor, Error> + 'a;

/// Records a pass, and computes it operation by operation.
fn record(gradients: &mut Gradients, inputs: &OnDevice, compute: &mut Compute) -> Result<(Stage, Tensor), Error> {
    let recorded = Recording::of(inputs, compute);
    gradients.clear()?;
    match recorded {
        Ok(recording) => beside(recording, gradients, inputs, compute),
        Err(why) => {
            tracing::warn!("passes are not recorded as a CUDA graph: {why}");
            Ok((Stage::Eager, compute(inputs)?))
        }
    }
}

/// Computes the first pass of a step operation by operation, while a recording has memory of its own. If that fails, the
/// recording is given up.
fn beside(
    recording: Recording,
    gradients: &mut Gradients,
    inputs: &OnDevice,
    compute: &mut Compute,
) -> Result<(Stage, Tensor), Error> {
    match attempt(|| compute(inputs)) {
        Ok(terms) => Ok((Stage::Recorded(recording), terms)),
        Err(why) => {
            // Mostly memory, of which both need twice as much. If something else fails, it does so again.
            tracing::warn!("passes are not replayed as a CUDA graph: beside it, the same pass fails: {why}");
            drop(recording);
            gradients.clear()?;
            Ok((Stage::Eager, compute(inputs)?))
        }
    }
}

/// Computes a pass operation by operation, replays it, and compares.
fn verify(
    recording: Recording,
    gradients: &mut Gradients,
    inputs: &OnDevice,
    compute: &mut Compute,
) -> Result<(Stage, Tensor), Error> {
    let (stage, terms) = beside(recording, gradients, inputs, compute)?;
    let Stage::Recorded(mut recording) = stage else { return Ok((stage, terms)) };
    let expected = copied(gradients.flat())?;
    gradients.clear()?;
    let replayed = recording.replay(inputs, compute)?;
    let losses = [&replayed, &terms].map(|terms| terms.get(0));
    let apart = [distance(gradients.flat(), &expected)?, distance(&losses[0], &losses[1])?];
    gradients.flat().shallow_clone().f_copy_(&expected)?;
    let stage = match apart {
        [Some(gradient), Some(loss)] if gradient <= TOLERANCE && loss <= TOLERANCE => {
            tracing::info!(
                "passes are replayed as a CUDA graph from here on; its gradient differs by {gradient:.0e} of its norm"
            );
            Stage::Replayed(recording)
        }
        [Some(gradient), Some(loss)] => {
            tracing::warn!(
                "passes are not replayed as a CUDA graph: its gradient differs by {gradient:.0e} of its norm, its losses by \
                 {loss:.0e}"
            );
            Stage::Eager
        }
        // A step that training skips; the next one may show it.
        _ => Stage::Recorded(recording),
    };
    Ok((stage, terms))
}

/// The norm of the difference, relative to that of `expected`; `None` if that is not finite.
fn distance(found: &Tensor, expected: &Tensor) -> Result<Option<f64>, Error> {
    let norm = |tensor: &Tensor| tensor.f_norm()?.f_double_value(&[]);
    let of = norm(expected)?;
    Ok(if of.is_finite() { Some(norm(&found.f_sub(expected)?)? / of.max(f64::MIN_POSITIVE)) } else { None })
}

impl Recording {
    /// Records a pass with a copy of `inputs`. It may add to the gradients, anything if it fails.
    fn of(inputs: &OnDevice, compute: &mut Compute) -> Result<Self, Error> {
        let inputs = inputs.copied()?;
        let (count, device) = (inputs.images.size()[0], inputs.images.device());
        let mut terms = Tensor::f_zeros([Terms::ROWS, count], (Kind::Float, device))?;
        let graph = Graph::record(device, || Ok::<_, Error>(terms.f_copy_(&compute(&inputs)?)?))?;
        Ok(Self { graph, inputs, terms })
    }

    /// The terms of the pass with the values of `inputs`.
    fn replay(&mut self, inputs: &OnDevice, compute: &mut Compute) -> Result<Tensor, Error> {
        self.inputs.renew(inputs)?;
        self.graph.replay(|| Ok::<_, Error>(self.terms.f_copy_(&compute(&self.inputs)?)?))?;
        // The next replay writes to the same memory.
        Ok(copied(&self.terms)?)
    }
}
