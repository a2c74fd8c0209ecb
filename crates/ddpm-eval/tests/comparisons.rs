//! Fréchet distance, kernel distance, precision and recall of the same two sets of features, as public implementations
//! compute them; and what must hold for any sets.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use ddpm_diffusion::{Stream, noise_batch};
use ddpm_eval::{EvalError, FeatureMoments, KernelDistance, Manifold, Side, Subsets, kernel_distance};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

const NEIGHBOURS: usize = 3;

struct Golden {
    tensors: HashMap<String, Tensor>,
    results: serde_json::Value,
}

impl Golden {
    fn read() -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
        let tensors = Tensor::read_safetensors(folder.join("comparisons.safetensors")).unwrap();
        let results = std::fs::read(folder.join("comparisons.json")).unwrap();
        Self { tensors: tensors.into_iter().collect(), results: serde_json::from_slice(&results).unwrap() }
    }

    fn sets(&self) -> (&Tensor, &Tensor) {
        (&self.tensors["samples"], &self.tensors["reference"])
    }

    fn check(&self, name: &str, found: f64) {
        let expected = self.results[name].as_f64().unwrap();
        assert!((found / expected - 1.0).abs() < 1e-6, "{name}: {found} instead of {expected}");
    }
}

/// The share of `vectors` inside the manifold of `set`, its rows divided into parts of `part`.
fn share_inside(vectors: &Tensor, set: &Tensor, part: usize) -> f64 {
    let manifold = Manifold::new(set, NEIGHBOURS).unwrap();
    let (count, all) = (vectors.size()[0], set.size()[0] as usize);
    let radii: Vec<f64> =
        (0..all).step_by(part).flat_map(|first| manifold.radii(first..(first + part).min(all)).unwrap()).collect();
    let radii = Tensor::from_slice(&radii);
    let inside =
        vectors.split(part as i64, 0).iter().flat_map(|part| manifold.contains(part, &radii).unwrap()).sum::<f64>();
    inside / count as f64
}

#[test]
fn all_distances_equal_those_of_public_implementations() {
    let golden = Golden::read();
    let (samples, reference) = golden.sets();
    let gaussian = |features: &Tensor| {
        let mut moments = FeatureMoments::new(features.size()[1]).unwrap();
        moments.add(features).unwrap();
        moments.gaussian().unwrap()
    };
    golden.check("frechet", gaussian(samples).frechet_distance(&gaussian(reference)).unwrap());

    let subsets = &golden.tensors["subsets"];
    let of = |index: i64| {
        let rows = |set: &Tensor, side: i64| set.index_select(0, &subsets.get(index).get(side));
        kernel_distance(&rows(samples, 0), &rows(reference, 1)).unwrap()
    };
    let found = KernelDistance::of(&(0..subsets.size()[0]).map(of).collect::<Vec<_>>());
    golden.check("kernel_mean", found.mean);
    golden.check("kernel_std", found.std);

    for part in [1000, 64] {
        golden.check("precision", share_inside(samples, reference, part));
        golden.check("recall", share_inside(reference, samples, part));
    }
}

#[test]
fn sets_that_are_too_small_or_do_not_fit_are_refused() {
    let zeros = |rows: i64, dim: i64| Tensor::zeros([rows, dim], (Kind::Float, Device::Cpu));
    assert!(matches!(
        Manifold::new(&zeros(3, 2), NEIGHBOURS),
        Err(EvalError::TooFewNeighbours { found: 3, neighbours: 3 })
    ));
    let manifold = Manifold::new(&zeros(4, 2), NEIGHBOURS).unwrap();
    let radii = Tensor::from_slice(&[0.0; 4]);
    assert!(matches!(manifold.contains(&zeros(4, 3), &radii), Err(EvalError::Features { dim: 2, .. })));
    assert_eq!(manifold.contains(&zeros(1, 2), &radii).unwrap(), [1.0], "a ball of radius 0 contains its centre");
    assert!(matches!(kernel_distance(&zeros(4, 3), &zeros(4, 2)), Err(EvalError::Features { dim: 3, .. })));
    assert!(matches!(kernel_distance(&zeros(1, 3), &zeros(1, 3)), Err(EvalError::TooFew { found: 1 })));
    let subsets = Subsets { count: 1, size: 5, seed: 0 };
    assert!(matches!(subsets.draw(Side::Samples, 0, 4), Err(EvalError::TooFewForSubsets { found: 4, size: 5 })));
    assert!(Subsets { size: 1, ..subsets }.check(4).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_subset_is_drawn_without_repetition(seed: u64, index in 0usize..100, size in 2usize..40, more in 0usize..40) {
        let subsets = Subsets { count: 100, size, seed };
        let len = size + more;
        let drawn = subsets.draw(Side::Samples, index, len).unwrap();
        prop_assert_eq!(drawn.len(), size);
        prop_assert!(drawn.iter().all(|row| (0..len as i64).contains(row)));
        prop_assert_eq!(drawn.iter().collect::<HashSet<_>>().len(), size);
        prop_assert_eq!(subsets.draw(Side::Samples, index, len).unwrap(), drawn);
    }

    #[test]
    fn equal_sets_have_full_precision_and_distant_ones_none(seed: u64, count in 4u64..50, dim in 1i64..8) {
        let x = noise_batch(seed, Stream::Sample, &(0..count).collect::<Vec<_>>(), &[dim]);
        prop_assert_eq!(share_inside(&x, &x, 7), 1.0);
        prop_assert_eq!(share_inside(&(&x + 1e3), &x, 7), 0.0);
    }

    #[test]
    fn the_kernel_distance_is_symmetric_and_grows_with_a_shift(seed: u64, count in 5u64..50, dim in 1i64..8) {
        let ids: Vec<u64> = (0..2 * count).collect();
        let both = noise_batch(seed, Stream::Sample, &ids, &[dim]);
        let (x, y) = (both.narrow(0, 0, count as i64), both.narrow(0, count as i64, count as i64));
        let near = kernel_distance(&x, &y).unwrap();
        prop_assert!((near - kernel_distance(&y, &x).unwrap()).abs() < 1e-9 * near.abs().max(1.0));
        prop_assert!(kernel_distance(&x, &(&y + 10.0)).unwrap() > near);
    }
}
