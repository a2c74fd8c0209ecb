//! Recorded passes: when one is recorded and replayed, and when it is given up. On the CPU a pass is run again instead of
//! replayed, with the inputs in the memory that was recorded.

use ddpm_comm::Memory;
use ddpm_model::Place;
use tch::Tensor;
use tempfile::tempdir;

use super::{Parts, collective, settings};
use crate::on_device::OnDevice;
use crate::passes::{Passes, Turn};
use crate::state::TrainState;
use crate::step::forward;
use crate::task::Task;

/// As if the CPU were a GPU.
const GPU: Place = Place { device: tch::Device::Cpu, memory: Memory::Device(0) };

#[test]
fn a_replayed_pass_changes_no_bit() {
    let (dir, comm) = (tempdir().unwrap(), collective());
    for micro_batch in ["train.micro_batch=8", "train.micro_batch=2"] {
        let settings = settings(dir.path(), &[micro_batch, "model.dropout=0.2"]);
        let mut eager = Parts::fresh(&comm, settings.clone());
        let mut replayed = Parts::fresh(&comm, settings.clone());
        replayed.passes = Passes::new(&settings, GPU, replayed.task.passes(1), false);
        for step in 0..8 {
            let [ours, theirs] = [&mut replayed, &mut eager].map(|parts| parts.step().unwrap().terms.read().unwrap());
            let bits = |terms: &[crate::terms::SampleTerms]| terms.iter().map(|t| t.loss.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&ours), bits(&theirs), "step {step}");
            assert!(replayed.numbers() == eager.numbers(), "step {step}");
        }
    }
}

#[test]
fn turns_are_counted_from_the_first_to_the_averaged() {
    let turns = |count: usize, overlaps| (0..count).map(|index| Turn::of(index, count, overlaps)).collect::<Vec<_>>();
    assert_eq!(turns(1, true), [Turn::Averaged]);
    assert_eq!(turns(1, false), [Turn::First]);
    assert_eq!(turns(3, true), [Turn::First, Turn::Later, Turn::Averaged]);
    assert_eq!(turns(3, false), [Turn::First, Turn::Later, Turn::Later]);
}

/// The passes of a task on fixed images, and which inputs each of them read.
struct Watched {
    task: Task,
    state: TrainState,
    passes: Passes,
    inputs: OnDevice,
    /// For each call, whether it read the inputs given, rather than those of a recording.
    calls: Vec<bool>,
}

impl Watched {
    fn new() -> Self {
        let (dir, comm) = (tempdir().unwrap(), collective());
        let settings = settings(dir.path(), &[]);
        let parts = Parts::fresh(&comm, settings.clone());
        let batch = parts.loader.next().unwrap();
        let draws = parts.state.sampler.draws(batch.prepared.units());
        let micro = parts.task.micro_batches(&batch.prepared, &draws).next().unwrap();
        let inputs = OnDevice::upload(&parts.task, &micro, tch::Device::Cpu).unwrap();
        let passes = Passes::new(&settings, GPU, 2, true);
        let Parts { task, state, .. } = parts;
        Self { task, state, passes, inputs, calls: Vec::new() }
    }

    /// Runs a pass whose loss is multiplied by what `scale` says for the call of this number, and returns how many calls
    /// of the closure it took.
    fn run(&mut self, turn: Turn, scale: impl Fn(usize) -> Option<f64>) -> usize {
        let before = self.calls.len();
        if turn == Turn::First {
            self.state.gradients.clear().unwrap();
        }
        let Self { task, state, passes, inputs, calls } = self;
        let (weights, given) = (&state.weights, inputs.t.data_ptr());
        let compute = |inputs: &OnDevice| {
            calls.push(inputs.t.data_ptr() == given);
            let why = "no more".to_owned();
            let scale = scale(calls.len()).ok_or_else(|| ddpm_model::Error::internal(why))?;
            let terms = forward(task, weights, inputs)?;
            (terms.weighted_mean(&inputs.loss_weights)? * scale).f_backward()?;
            Ok(terms.detached()?)
        };
        let terms: Tensor = passes.run(&mut state.gradients, inputs, turn, compute).unwrap();
        assert_eq!(terms.size(), [4, 8]);
        self.calls.len() - before
    }

    /// The norm of the gradients.
    fn gradient(&self) -> f64 {
        self.state.gradients.flat().norm().double_value(&[])
    }
}

#[test]
fn a_pass_is_recorded_compared_and_then_replayed() {
    let mut watched = Watched::new();
    let step = |watched: &mut Watched| {
        let turns = [Turn::First, Turn::Later, Turn::Averaged];
        turns.map(|turn| watched.run(turn, |_| Some(1.0)))
    };
    for _ in 0..3 {
        assert_eq!(step(&mut watched), [1, 1, 1]);
    }
    assert!(watched.calls.iter().all(|given| *given));
    let expected = watched.gradient();
    watched.calls.clear();
    // Recorded, and computed as before.
    assert_eq!(step(&mut watched), [2, 1, 1]);
    // Computed as before, and replayed.
    assert_eq!(step(&mut watched), [2, 1, 1]);
    assert_eq!(step(&mut watched), [1, 1, 1]);
    assert_eq!(watched.gradient(), expected);
    let replayed: Vec<usize> = (0..watched.calls.len()).filter(|call| !watched.calls[*call]).collect();
    assert_eq!(replayed, [0, 5, 6, 8, 9], "of {:?}", watched.calls);
}

#[test]
fn a_pass_that_reads_what_is_not_recorded_is_not_replayed() {
    for (what, replayed, counted) in
        [("another gradient", 1.01, false), ("the last digits", 1.0001, true), ("not a number", f64::NAN, false)]
    {
        let mut watched = Watched::new();
        for _ in 0..4 {
            watched.run(Turn::First, |_| Some(1.0));
        }
        let expected = watched.gradient();
        let first = watched.calls.len() + 1;
        // The first call is the usual one, the second the replay.
        assert_eq!(watched.run(Turn::First, |call| Some(if call == first { 1.0 } else { replayed })), 2);
        assert_eq!(watched.gradient(), expected, "{what}: the step keeps the gradient of the usual pass");
        watched.calls.clear();
        assert_eq!(watched.run(Turn::First, |_| Some(1.0)), 1);
        assert_eq!(watched.calls, [!counted], "{what}");
    }
}

#[test]
fn a_comparison_waits_for_a_gradient_that_is_finite() {
    let mut watched = Watched::new();
    for _ in 0..4 {
        watched.run(Turn::First, |_| Some(1.0));
    }
    assert_eq!(watched.run(Turn::First, |_| Some(f64::INFINITY)), 2);
    assert!(!watched.gradient().is_finite());
    assert_eq!(watched.run(Turn::First, |_| Some(1.0)), 2);
    assert_eq!(watched.run(Turn::First, |_| Some(1.0)), 1);
    assert_eq!(watched.calls.last(), Some(&false));
}

#[test]
fn a_recording_that_fails_leaves_the_step_as_it_is() {
    let usual = {
        let mut watched = Watched::new();
        watched.run(Turn::First, |_| Some(1.0));
        watched.gradient()
    };
    // Call 4 is recorded; calls 5 and 6 are the usual passes beside the recording.
    for failing in [4, 5, 6] {
        let mut watched = Watched::new();
        for _ in 0..8 {
            watched.run(Turn::First, |call| (call != failing).then_some(1.0));
            assert_eq!(watched.gradient(), usual, "call {failing} failed");
        }
        let recorded = watched.calls.iter().filter(|given| !**given).count();
        assert_eq!((recorded, watched.calls.last()), (1, Some(&true)), "call {failing} failed");
    }
}
