//! The Fréchet distance: reference values, a case with a known answer, and arbitrary partitions of the vectors.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Barrier, Mutex};

use ddpm_diffusion::{Stream, noise_batch};
use ddpm_eval::{EvalError, FeatureMoments, Gaussian};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

fn moments(features: &Tensor) -> FeatureMoments {
    let mut moments = FeatureMoments::new(features.size()[1]).unwrap();
    moments.add(features).unwrap();
    moments
}

/// The Fréchet distance of two sets with these moments.
fn distance(a: &FeatureMoments, b: &FeatureMoments) -> Result<f64, EvalError> {
    a.gaussian()?.frechet_distance(&b.gaussian()?)
}

fn normal(seed: u64, count: u64, dim: i64) -> Tensor {
    noise_batch(seed, Stream::Sample, &(0..count).collect::<Vec<_>>(), &[dim]).to_kind(Kind::Double)
}

#[test]
fn distances_equal_reference_values() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let tensors: HashMap<String, Tensor> =
        Tensor::read_safetensors(golden.join("frechet.safetensors")).unwrap().into_iter().collect();
    let expected: serde_json::Value =
        serde_json::from_slice(&std::fs::read(golden.join("frechet.json")).unwrap()).unwrap();
    let (a, b) = (&tensors["a"], &tensors["b"]);
    // With ten vectors the covariance is singular.
    for (name, a) in [("a_vs_b", a), ("first_10_of_a_vs_b", &a.narrow(0, 0, 10))] {
        let expected = expected[name].as_f64().unwrap();
        for found in [distance(&moments(a), &moments(b)), distance(&moments(b), &moments(a))] {
            let found = found.unwrap();
            assert!((found / expected - 1.0).abs() < 1e-6, "{name}: {found} instead of {expected}");
        }
    }
}

#[test]
fn shifted_and_scaled_features_have_the_analytic_distance() {
    // Per feature (m1 - m2)² + (s1 - s2)², far from 0, where sums of squares would cancel.
    let x = normal(1, 500, 6);
    let a = moments(&(&x + 1e6));
    let spread = x.std_dim(0, true, false).square().sum(Kind::Double).double_value(&[]);
    let found = distance(&a, &moments(&(&x * 3.0 + (1e6 + 0.5)))).unwrap();
    let apart = (x.mean_dim(0, false, None) * 2.0 + 0.5).square().sum(Kind::Double).double_value(&[]);
    assert!((found - apart - 4.0 * spread).abs() < 1e-6, "{found} instead of {}", apart + 4.0 * spread);
    assert!(distance(&a, &a).unwrap() < 1e-9);
}

#[test]
fn a_set_with_fewer_vectors_than_features_has_no_distance_from_itself() {
    let few = moments(&normal(2, 40, 256));
    let found = distance(&few, &few).unwrap();
    assert!((0.0..1e-9).contains(&found), "{found}");
}

#[test]
fn invalid_comparisons_are_refused() {
    let one = moments(&normal(1, 1, 3));
    let two = moments(&normal(1, 2, 3));
    assert!(matches!(distance(&one, &two), Err(EvalError::TooFew { found: 1 })));
    let wider = moments(&normal(1, 2, 4));
    assert!(matches!(distance(&two, &wider), Err(EvalError::Widths { ours: 3, theirs: 4 })));
    let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Double, Device::Cpu));
    assert!(matches!(Gaussian::new(zeros(&[3]), zeros(&[3, 2])), Err(EvalError::Moments { .. })));
    let infinite = Gaussian::new(zeros(&[3]), zeros(&[3, 3]) + f64::INFINITY);
    assert!(matches!(infinite, Err(EvalError::MomentsNotFinite)));
    let wrong = Tensor::zeros([2, 5], (Kind::Float, Device::Cpu));
    assert!(matches!(FeatureMoments::new(3).unwrap().add(&wrong), Err(EvalError::Features { dim: 3, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_distance_does_not_depend_on_batches_or_ranks(seed: u64, ends in prop::collection::vec(0i64..60, 0..6), ranks in 1usize..4) {
        let (x, y) = (normal(seed, 60, 5) * 2.0 + 7.0, normal(!seed, 30, 5));
        let mut ends: Vec<i64> = ends.into_iter().chain([0, 60]).collect();
        ends.sort_unstable();
        let mut shares: Vec<FeatureMoments> = (0..ranks).map(|_| FeatureMoments::new(5).unwrap()).collect();
        for (i, pair) in ends.windows(2).enumerate() {
            shares[i % ranks].add(&x.narrow(0, pair[0], pair[1] - pair[0])).unwrap();
        }
        // One thread per rank, with an all-reduce between them.
        let slots = Mutex::new([const { Vec::new() }; 2]);
        let barrier = Barrier::new(ranks);
        let all_reduce = |call: usize, values: &mut [f64]| {
            {
                let sums = &mut slots.lock().unwrap()[call];
                sums.resize(values.len(), 0.0);
                sums.iter_mut().zip(&*values).for_each(|(sum, value)| *sum += value);
            }
            barrier.wait();
            values.copy_from_slice(&slots.lock().unwrap()[call]);
        };
        std::thread::scope(|scope| {
            for share in &mut shares {
                scope.spawn(|| {
                    let mut calls = 0..;
                    share.merge(|values| all_reduce(calls.next().unwrap(), values)).unwrap();
                });
            }
        });
        let whole = distance(&moments(&x), &moments(&y)).unwrap();
        for share in &shares {
            prop_assert_eq!(share.count(), 60);
            prop_assert!((distance(share, &moments(&y)).unwrap() - whole).abs() < 1e-9);
        }
    }
}
