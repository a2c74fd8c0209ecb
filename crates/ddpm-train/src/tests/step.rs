//! One step: what it changes, what it leaves unchanged, and how it ends a run that diverges.

use ddpm_model::{ErrorKind, Failure};
use tempfile::tempdir;

use super::{Parts, collective, numbers, settings};

#[test]
fn a_step_moves_weights_moments_and_averages_and_counts_itself() {
    let (dir, comm) = (tempdir().unwrap(), collective());
    let mut parts = Parts::fresh(&comm, settings(dir.path(), &[]));
    let before = parts.numbers();
    let stepped = parts.step().unwrap();
    assert!(stepped.grad_norm > 0.0 && stepped.lr == 1e-3, "{} {}", stepped.grad_norm, stepped.lr);
    for ((name, old), (_, new)) in before.iter().zip(parts.numbers()) {
        assert!(*old != new, "{name} has not changed");
    }
    assert_eq!((parts.state.step, parts.state.skipped, parts.state.optimizer.steps()), (1, 0, 1));
    let terms = stepped.terms.read().unwrap();
    assert_eq!(terms.len(), 8);
    assert!(terms.iter().all(|term| term.loss.is_finite() && term.weight == 1.0 && term.correct.is_nan()));
}

#[test]
fn micro_batches_add_up_to_the_batch() {
    let (dir, comm) = (tempdir().unwrap(), collective());
    let mut whole = Parts::fresh(&comm, settings(dir.path(), &[]));
    let mut cut = Parts::fresh(&comm, settings(dir.path(), &["train.micro_batch=2"]));
    let (a, b) = (whole.step().unwrap(), cut.step().unwrap());
    assert!((a.grad_norm - b.grad_norm).abs() < 1e-5 * a.grad_norm, "{} and {}", a.grad_norm, b.grad_norm);
    let losses =
        |terms: Vec<crate::terms::SampleTerms>| terms.iter().map(|term| (term.t, term.loss)).collect::<Vec<_>>();
    for ((t, one), (same, other)) in losses(a.terms.read().unwrap()).into_iter().zip(losses(b.terms.read().unwrap())) {
        assert!(t == same && (one - other).abs() < 1e-5 * one.abs(), "at t = {t}: {one} and {other}");
    }
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing_and_too_many_end_the_training() {
    let (dir, comm) = (tempdir().unwrap(), collective());
    let mut parts = Parts::fresh(&comm, settings(dir.path(), &["train.skip_nonfinite=2"]));
    parts.steps(1);
    let _ = tch::no_grad(|| parts.state.weights.flat().shallow_clone().narrow(0, 0, 1).fill_(f64::NAN));
    let before = parts.numbers();
    assert!(parts.step().unwrap().grad_norm.is_nan());
    let moments = |numbers: Vec<(String, Vec<f32>)>| numbers.into_iter().skip(1).collect::<Vec<_>>();
    assert!(moments(before) == moments(parts.numbers()), "moments or averages took in the gradient");
    assert_eq!((parts.state.step, parts.state.skipped, parts.state.skipped_in_a_row), (2, 1, 1));
    let Err(Failure::Agreed(ended)) = parts.step() else { panic!("the training goes on") };
    assert_eq!(ended.error().kind(), ErrorKind::Diverged);
    assert!(ended.to_string().contains("not finite 2 times in a row, up to step 3"), "{ended}");
}

#[test]
fn samples_are_drawn_from_the_slowest_average() {
    let (dir, comm) = (tempdir().unwrap(), collective());
    let mut parts = Parts::fresh(&comm, settings(dir.path(), &["ema.warmup=false"]));
    parts.steps(2);
    let preview = parts.state.preview_weights(&parts.task.network).unwrap();
    assert!(numbers(preview.flat()) == numbers(parts.state.averages[1].flat()));
    assert!(numbers(preview.flat()) != numbers(parts.state.averages[0].flat()));
}
