//! The bound against reference values, for any partition of the work, and its estimate from a subset of the timesteps.

#[path = "../../ddpm-diffusion/tests/common/mod.rs"]
mod common;

use std::collections::HashMap;
use std::path::PathBuf;

use common::bound_model;
use ddpm_diffusion::{
    BetaSchedule, BoundTerms, Clip, Diffusion, DiffusionSpec, Loss, ModelError, Prediction, Stream, Variance,
    Weighting, betas, noise_batch, uniform,
};
use ddpm_eval::{BoundSums, EvalError, Evaluation, Images, Strata};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

fn process(schedule: BetaSchedule, timesteps: usize, variance: Variance) -> Diffusion {
    let settings = DiffusionSpec { prediction: Prediction::Eps, variance, loss: Loss::Vlb, weighting: Weighting::None };
    Diffusion::new(betas(&schedule, timesteps).unwrap(), settings, Device::Cpu).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(&tensor.to_kind(Kind::Double)).unwrap()
}

fn check(name: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let off = (found - expected).abs() / expected.abs().max(1.0);
        assert!(off <= tolerance, "{name}[{i}]: {found} instead of {expected}");
    }
}

#[test]
fn the_bound_equals_reference_values() {
    for (file, schedule, timesteps) in [
        ("bound-linear-40.safetensors", BetaSchedule::linear(40), 40),
        ("bound-cosine-25.safetensors", BetaSchedule::Cosine, 25),
    ] {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(file);
        let golden: HashMap<String, Tensor> = Tensor::read_safetensors(path).unwrap().into_iter().collect();
        let process = process(schedule, timesteps, Variance::LearnedRange);
        let model = |x: &Tensor, t: &Tensor| bound_model(timesteps, x, t);
        let x_start = &golden["x_start"];
        let batch = x_start.size()[0] as usize;
        let mut sums = BoundSums::new(&Strata::every(timesteps), batch);
        sums.add_prior(0, &process.prior_bpd(x_start)).unwrap();
        for t in 0..timesteps {
            let noise = golden["noise_by_t"].get(t as i64);
            let full = Tensor::full([batch as i64], t as i64, (Kind::Int64, Device::Cpu));
            let terms = process.bound_terms(x_start, &full, &noise, Clip::Unit, model).unwrap();
            sums.add_terms(0, &vec![t; batch], &terms).unwrap();
        }
        let found = sums.likelihood();
        check(&format!("{file} by image"), &sums.by_image(), &numbers(&golden["total_bpd"]), 1e-4);
        let mean = |name: &str| golden[name].mean(Kind::Double).double_value(&[]);
        check(&format!("{file} total"), &[found.bits_per_dim], &[mean("total_bpd")], 1e-4);
        check(&format!("{file} prior"), &[found.prior], &[mean("prior_bpd")], 1e-5);
        // The columns of the file run from T - 1 down to 0.
        let columns = |name: &str| numbers(&golden[name].mean_dim(0, false, Kind::Double).flip([0]));
        let ours =
            |value: fn(&ddpm_eval::TimestepMeans) -> f64| found.by_timestep.iter().map(value).collect::<Vec<_>>();
        check(&format!("{file} vb"), &ours(|t| t.vb), &columns("vb"), 1e-4);
        check(&format!("{file} mse"), &ours(|t| t.mse), &columns("mse"), 1e-4);
        check(&format!("{file} xstart_mse"), &ours(|t| t.xstart_mse), &columns("xstart_mse"), 1e-4);
        let vb = columns("vb");
        check(&format!("{file} parts"), &[found.decoder, found.kl], &[vb[0], vb[1..].iter().sum()], 1e-4);
        let quarter: Vec<f64> = columns("mse")[..timesteps.div_ceil(4)].to_vec();
        let first = quarter.iter().sum::<f64>() / quarter.len() as f64;
        check(&format!("{file} first quarter"), &[found.mse_quarters[0].unwrap()], &[first], 1e-4);
    }
}

const TIMESTEPS: usize = 60;
const IMAGES: usize = 48;

/// Images with 256 grey levels, for a network that predicts about half of the noise.
fn images() -> Tensor {
    let ids: Vec<u64> = (0..IMAGES as u64).collect();
    let x = noise_batch(1, Stream::Sample, &ids, &[1, 4, 4]) * 0.4;
    ((x.clamp(-1.0, 1.0) + 1.0) * 127.5).round() / 127.5 - 1.0
}

fn model(x: &Tensor, t: &Tensor) -> Result<Tensor, ModelError> {
    let share = t.to_kind(x.kind()).view([-1, 1, 1, 1]) / TIMESTEPS as f64;
    Ok(x * (share * 0.6 + 0.3))
}

/// The bound of [`images`], with the work divided among `ranks` in batches of `batch`.
fn bound(strata: &Strata, seed: u64, batch: usize, ranks: usize) -> BoundSums {
    let process = process(BetaSchedule::Cosine, TIMESTEPS, Variance::FixedLarge);
    let evaluation = Evaluation { process: &process, strata, clip: Clip::Unit, seed };
    let images = images();
    let mut shares = vec![BoundSums::new(strata, IMAGES); ranks];
    for (unit, (first, stratum)) in
        (0..IMAGES).step_by(batch).flat_map(|first| (0..strata.len()).map(move |k| (first, k))).enumerate()
    {
        let count = batch.min(IMAGES - first);
        let ids: Vec<u64> = (first..first + count).map(|i| 7 * i as u64).collect();
        let x_start = images.narrow(0, first as i64, count as i64);
        let images = Images { x_start: &x_start, ids: &ids, first };
        evaluation.add(&mut shares[unit % ranks], &images, stratum, model).unwrap();
    }
    let (mut total, others) = (shares[0].clone(), &mut shares[1..]);
    for other in others {
        let mut theirs = Vec::new();
        other.merge(|sums| theirs.push(sums.to_vec()));
        let mut theirs = theirs.iter();
        total.merge(|sums| sums.iter_mut().zip(theirs.next().unwrap()).for_each(|(a, b)| *a += b));
    }
    total
}

#[test]
fn the_bound_does_not_depend_on_batches_or_ranks() {
    for strata in [Strata::every(TIMESTEPS), Strata::sampled(TIMESTEPS, 9).unwrap()] {
        let whole = bound(&strata, 3, IMAGES, 1);
        for (batch, ranks) in [(7, 1), (IMAGES, 2), (5, 3)] {
            let shared = bound(&strata, 3, batch, ranks);
            check("by image", &shared.by_image(), &whole.by_image(), 1e-6);
            let (ours, theirs) = (shared.likelihood(), whole.likelihood());
            check("total", &[ours.bits_per_dim], &[theirs.bits_per_dim], 1e-6);
            assert_eq!(ours.by_timestep.len(), theirs.by_timestep.len());
        }
        let other = bound(&strata, 4, IMAGES, 1).likelihood();
        assert_ne!(other.bits_per_dim, whole.likelihood().bits_per_dim, "the seed has no effect");
    }
}

#[test]
fn an_estimate_has_the_mean_of_the_bound_and_the_reported_error() {
    let strata = Strata::sampled(TIMESTEPS, 8).unwrap();
    let every = Strata::every(TIMESTEPS);
    let seeds = 0..24;
    let differences: Vec<f64> = seeds
        .map(|seed| {
            let (estimate, whole) = (bound(&strata, seed, IMAGES, 1).likelihood(), bound(&every, seed, IMAGES, 1));
            let whole = whole.likelihood();
            assert_eq!(estimate.decoder, whole.decoder, "the decoder's term is always evaluated");
            assert!((estimate.prior - whole.prior).abs() < 1e-12);
            let error = estimate.standard_error.unwrap();
            let off = estimate.bits_per_dim - whole.bits_per_dim;
            assert!(off.abs() < 4.0 * error, "seed {seed}: off by {off}, reported is {error}");
            assert!(error < 0.2 * whole.bits_per_dim, "seed {seed}: {error} says nothing of {}", whole.bits_per_dim);
            off
        })
        .collect();
    let count = differences.len() as f64;
    let mean = differences.iter().sum::<f64>() / count;
    let spread = (differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (count - 1.0)).sqrt();
    assert!(mean.abs() < 4.0 * spread / count.sqrt(), "biased by {mean}, one estimate's spread is {spread}");
}

/// Over many draws, with known terms: image i has a_i / (1 + t) at t and a prior of 1 - a_i, with a_i uniform in [0,
/// 1], so the mean over all images and timesteps is known too. The reported error must equal the spread of the
/// estimates, and cover the true value as often as a normal error of that size would.
#[test]
fn the_reported_error_equals_the_spread_of_repeated_draws() {
    let strata = Strata::sampled(TIMESTEPS, 6).unwrap();
    let truth = 0.5 + 0.5 * (0..TIMESTEPS).map(|t| 1.0 / (t + 1) as f64).sum::<f64>();
    const DRAWS: u64 = 2000;
    // With four images a wrong n - 1 would change the error by a sixth; with 64 the error is practically normal.
    for images in [4, 64] {
        let (estimates, errors): (Vec<f64>, Vec<f64>) = (0..DRAWS)
            .map(|draw| {
                let ids: Vec<u64> = (draw * images..(draw + 1) * images).collect();
                let sizes: Vec<f64> = ids.iter().map(|&id| uniform(5, Stream::Timestep, id)).collect();
                let mut sums = BoundSums::new(&strata, ids.len());
                sums.add_prior(0, &(1.0 - Tensor::from_slice(&sizes))).unwrap();
                for k in 0..strata.len() {
                    let t: Vec<usize> = ids.iter().map(|&id| strata.draw(k, 0, id)).collect();
                    let vb: Vec<f64> = t.iter().zip(&sizes).map(|(&t, size)| size / (t + 1) as f64).collect();
                    let vb = Tensor::from_slice(&vb);
                    let zeros = || vb.zeros_like();
                    let terms = BoundTerms { mse: zeros(), xstart_mse: zeros(), loss: zeros(), vb };
                    sums.add_terms(0, &t, &terms).unwrap();
                }
                let found = sums.likelihood();
                (found.bits_per_dim, found.standard_error.unwrap())
            })
            .unzip();
        let draws = DRAWS as f64;
        let mean = estimates.iter().sum::<f64>() / draws;
        let spread = (estimates.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / (draws - 1.0)).sqrt();
        let stated = (errors.iter().map(|e| e.powi(2)).sum::<f64>() / draws).sqrt();
        assert!((mean - truth).abs() < 4.0 * spread / draws.sqrt(), "{images} images: {mean}, not {truth}");
        assert!(
            (stated / spread - 1.0).abs() < 0.06,
            "{images} images: {stated} is reported, but the spread is {spread}"
        );
        if images == 64 {
            let held = |width: f64| {
                let held = estimates.iter().zip(&errors).filter(|(e, error)| (*e - truth).abs() < width * *error);
                held.count() as f64 / draws
            };
            for (width, normal) in [(1.0, 0.683), (2.0, 0.954)] {
                let share = held(width);
                assert!((share - normal).abs() < 0.03, "{width} errors cover the true value in {share} of the draws");
            }
        }
    }
}

#[test]
fn one_image_has_no_standard_error_and_unseen_quarters_no_mse() {
    let process = process(BetaSchedule::Cosine, TIMESTEPS, Variance::FixedLarge);
    let strata = Strata::sampled(TIMESTEPS, 2).unwrap();
    let evaluation = Evaluation { process: &process, strata: &strata, clip: Clip::Unit, seed: 0 };
    let (x_start, mut sums) = (images().narrow(0, 0, 1), BoundSums::new(&strata, 1));
    for stratum in 0..2 {
        evaluation.add(&mut sums, &Images { x_start: &x_start, ids: &[0], first: 0 }, stratum, model).unwrap();
    }
    let found = sums.likelihood();
    assert_eq!(found.standard_error, None);
    assert_eq!(found.by_timestep.len(), 2);
    assert!(found.mse_quarters.iter().filter(|mse| mse.is_none()).count() >= 2);
    let drawn = found.by_timestep[1];
    check("kl", &[found.kl], &[drawn.vb * (TIMESTEPS - 1) as f64], 1e-12);
}

#[test]
fn a_count_out_of_range_is_refused() {
    for requested in [0, 1, 101] {
        let error = Strata::sampled(100, requested).unwrap_err();
        assert!(matches!(error, EvalError::Timesteps { timesteps: 100, .. }), "{error}");
    }
}

proptest! {
    #[test]
    fn strata_tile_the_timesteps_in_order(timesteps in 2usize..5000, share in 0.0f64..1.0, seed: u64, id: u64) {
        let count = 2 + ((timesteps - 2) as f64 * share) as usize;
        let strata = Strata::sampled(timesteps, count).unwrap();
        prop_assert_eq!((strata.len(), strata.timesteps()), (count, timesteps));
        let mut expected = 0;
        for k in 0..count {
            let range = strata.range(k);
            prop_assert_eq!(range.start, expected);
            prop_assert!(!range.is_empty());
            prop_assert!(k < 2 || range.len() + 1 >= strata.range(k - 1).len(), "strata grow with t but for rounding");
            prop_assert!(range.contains(&strata.draw(k, seed, id)));
            expected = range.end;
        }
        prop_assert_eq!(expected, timesteps);
        prop_assert_eq!(strata.range(0), 0..1);
        prop_assert_eq!(Strata::sampled(timesteps, timesteps).unwrap(), Strata::every(timesteps));
    }
}
