//! The Frechet distance against published code and against Gaussians whose distance is known.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use ddpm_eval::{EvalError, FeatureSums};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

fn of(features: &Tensor) -> FeatureSums {
    let mut sums = FeatureSums::new(features.size()[1] as usize);
    sums.add(features).unwrap();
    sums
}

#[test]
fn the_distance_is_the_published_one() {
    let tensors: HashMap<String, Tensor> =
        Tensor::read_safetensors(golden("frechet.safetensors")).unwrap().into_iter().collect();
    let expected: Value = serde_json::from_str(&fs::read_to_string(golden("frechet.json")).unwrap()).unwrap();
    let (a, b) = (&tensors["a"], &tensors["b"]);
    // Ten vectors of 24 numbers: a singular covariance.
    for (key, a) in [("a_vs_b", a.shallow_clone()), ("first_10_of_a_vs_b", a.narrow(0, 0, 10))] {
        let due = expected[key].as_f64().unwrap();
        for found in [of(&a).distance(&of(b)).unwrap(), of(b).distance(&of(&a)).unwrap()] {
            assert!((found - due).abs() <= 1e-5 * due, "{key}: {found} where {due} was due");
        }
        assert!(of(&a).distance(&of(&a)).unwrap() < 1e-6, "{key}: from itself");
    }
    let mut parts = [of(&a.narrow(0, 0, 1)), of(&a.narrow(0, 1, 170)), of(&a.narrow(0, 171, 129))];
    let [total, others @ ..] = &mut parts;
    for other in others {
        let mut theirs = Vec::new();
        other.merge(|sums| theirs.push(sums.to_vec()));
        let mut theirs = theirs.iter();
        total.merge(|sums| sums.iter_mut().zip(theirs.next().unwrap()).for_each(|(a, b)| *a += b));
    }
    let (merged, whole) = (total.distance(&of(b)).unwrap(), of(a).distance(&of(b)).unwrap());
    assert!((merged - whole).abs() <= 1e-9 * whole, "{merged} in parts, {whole} at once");
    assert_eq!(total.count(), 300);
}

#[test]
fn independent_features_add_their_own_distances() {
    tch::manual_seed(3);
    let noise = Tensor::randn([500, 6], (Kind::Double, Device::Cpu));
    let (scale, shift) =
        (Tensor::from_slice(&[0.5, 1.0, 2.0, 3.0, 0.0, 1.0]), Tensor::from_slice(&[3.0, 0., 0., 1., 0., 0.]));
    // Each feature is scaled and shifted: its distance is shift² + (1 - scale)² variance where features do not correlate.
    let centred = &noise - noise.mean_dim(0, false, Kind::Double);
    let covariance = centred.tr().matmul(&centred) / 499.0;
    let (values, vectors) = covariance.linalg_eigh("L");
    let principal = centred.matmul(&vectors);
    let stretch: Tensor = 1.0 - &scale;
    let expected: Tensor = shift.square() + stretch.square() * values;
    let expected = expected.sum(Kind::Double).double_value(&[]);
    let found = of(&principal).distance(&of(&(&principal * scale + shift))).unwrap();
    // The fifth feature is constant on one side: the root of an eigenvalue of 0 has half of the digits.
    assert!((found - expected).abs() < 1e-6, "{found} where {expected} was due");
}

#[test]
fn what_has_no_distance_is_refused() {
    let some = of(&Tensor::ones([3, 2], (Kind::Float, Device::Cpu)));
    let refused = [
        some.distance(&FeatureSums::new(2)).unwrap_err(),
        some.distance(&of(&Tensor::ones([3, 4], (Kind::Float, Device::Cpu)))).unwrap_err(),
        some.distance(&of(&Tensor::full([3, 2], f64::NAN, (Kind::Float, Device::Cpu)))).unwrap_err(),
        some.clone().add(&Tensor::ones([2, 3], (Kind::Float, Device::Cpu))).unwrap_err(),
    ];
    assert!(matches!(refused[0], EvalError::TooFew { found: 0 }), "{}", refused[0]);
    assert!(matches!(refused[1], EvalError::Features { due: 2, .. }), "{}", refused[1]);
    assert!(matches!(refused[2], EvalError::NotFinite), "{}", refused[2]);
    assert!(matches!(refused[3], EvalError::Features { due: 2, .. }), "{}", refused[3]);
}
