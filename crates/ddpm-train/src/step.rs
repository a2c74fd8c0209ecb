//! One training step, from a batch of images to updated weights and averages.

use std::sync::Arc;

use ddpm_comm::Agreed;
use ddpm_data::Batch;
use ddpm_model::images::from_levels;
use ddpm_model::{Error, ErrorKind, Failure};
use ddpm_nn::{Weights, clip};
use tch::Tensor;
use tch_ext::{GradientSinks, in_range};

use crate::ahead::Prepared;
use crate::clock::{Clock, Lap, timed};
use crate::gradient_sync::GradientSync;
use crate::objective::{Noised, Terms};
use crate::on_device::OnDevice;
use crate::passes::{Passes, Turn};
use crate::state::TrainState;
use crate::stopwatch::Stopwatch;
use crate::task::Task;
use crate::terms::PendingTerms;

/// The result of a step.
pub struct Stepped {
    /// The terms of each sample of this rank's slice, still on the device.
    pub terms: PendingTerms,
    /// L2 norm of the averaged gradient before clipping; not finite if the update was skipped.
    pub grad_norm: f64,
    /// Learning rate of the update.
    pub lr: f64,
    /// How each rank spent the step before, by rank; empty after the first.
    pub laps: Vec<Lap>,
}

/// Takes one step, all ranks together, on this rank's slice of the global batch.
pub fn step(
    task: &Task,
    state: &mut TrainState,
    sync: &mut GradientSync,
    passes: &mut Passes,
    batch: &Batch<Prepared>,
    (clock, stopwatch): (&mut Clock, &mut Stopwatch),
) -> Result<Stepped, Failure> {
    let waited = clock.comm_wait;
    stopwatch.start();
    state.gradients.clear()?;
    let draws = state.sampler.draws(batch.prepared.units());
    let (sinks, device) = (Arc::clone(state.gradients.sinks()), state.weights.flat().device());
    let mut parts = Vec::new();
    let micro_batches = task.micro_batches(&batch.prepared, &draws);
    let count = micro_batches.len();
    for (index, micro) in micro_batches.enumerate() {
        let inputs = OnDevice::upload(task, &micro, device)?;
        if index + 1 == count {
            sync.begin(); // Buckets are averaged while the backward part of this pass runs.
        }
        let turn = Turn::of(index, count, sync.overlaps());
        // All ranks and micro-batches have the same number of samples, so the mean of their means is the global mean.
        let compute = |inputs: &OnDevice| pass(task, &state.weights, &sinks, inputs, count * sync.ranks());
        parts.push(passes.run(&mut state.gradients, &inputs, turn, compute)?);
    }
    stopwatch.stop();
    timed(c"gradient average", &mut clock.comm_wait, || sync.finish());
    let norms = sync.norms(clock.last_lap(), &mut clock.comm_wait)?;
    let passes = stopwatch.read(clock.comm_wait - waited);
    state.record_noise(&norms, task.global_batch);
    let lr = task.lr.at(state.step);
    state.step += 1;
    clock.images += task.global_batch as u64;
    if norms.average.is_finite() {
        state.skipped_in_a_row = 0;
        let mut gradients = state.gradients.flat().shallow_clone();
        in_range(c"clip", || clip(&mut gradients, norms.average, task.grad_clip))?;
        in_range(c"optimizer", || state.optimizer.step(state.weights.flat(), &gradients, lr))?;
        if state.step.is_multiple_of(task.ema_every) {
            in_range(c"EMA", || state.averages.iter_mut().try_for_each(|ema| ema.update(state.weights.flat())))?;
        }
    } else {
        skip_update(task, state)?;
    }
    clock.lap(passes.compute, passes.unseen);
    Ok(Stepped { terms: PendingTerms::new(draws, parts), grad_norm: norms.average, lr, laps: norms.laps })
}

/// Adds the gradient of a micro-batch's loss, divided by `parts`, to the gradients, and returns its terms. Everything else
/// that it reads stays the same: a recorded pass reads it no more.
fn pass(
    task: &Task,
    weights: &Weights,
    sinks: &GradientSinks,
    inputs: &OnDevice,
    parts: usize,
) -> Result<Tensor, Error> {
    let terms = in_range(c"forward", || forward(task, weights, inputs))?;
    let loss = terms.weighted_mean(&inputs.loss_weights)?.f_div_scalar(parts as f64)?;
    let detached = terms.detached()?;
    in_range(c"backward", || loss.f_backward())?;
    sinks.flush()?;
    Ok(detached)
}

/// Computes the loss of each sample of a micro-batch: adds noise to the images, predicts, compares. The result
/// carries the graph for backward.
pub(crate) fn forward(task: &Task, weights: &Weights, inputs: &OnDevice) -> Result<Terms, Error> {
    let OnDevice { images, noise, t, labels, dropout, .. } = inputs;
    let x_start = from_levels(images)?;
    let x_t = task.diffusion.q_sample(&x_start, t, noise);
    let noised = Noised { labels: labels.as_ref(), x_start, noise, t, x_t, dropout: dropout.as_ref() };
    task.objective.terms(&task.network, weights, &task.diffusion, &noised)
}

/// Skips the update; after too many skips in a row, the run counts as diverged. All ranks use the same gradient norm,
/// so they all make the same decision.
fn skip_update(task: &Task, state: &mut TrainState) -> Result<(), Failure> {
    state.skipped += 1;
    state.skipped_in_a_row += 1;
    tracing::warn!("step {}: the gradient is not finite, so the weights stay as they are", state.step);
    if state.skipped_in_a_row < task.skip_nonfinite {
        return Ok(());
    }
    let message = format!(
        "training diverged: the gradient was not finite {} times in a row, up to step {}. Lower train.lr or \
         train.grad_clip and resume from the last checkpoint.",
        state.skipped_in_a_row, state.step
    );
    Err(Agreed::known_to_all(Error::new(ErrorKind::Diverged, message)).into())
}
