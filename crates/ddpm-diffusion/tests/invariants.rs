//! What must hold for any schedule, any batch and any world size.

mod common;

use std::num::NonZeroU64;

use common::{SIMPLE, distance, linear, noise};
use ddpm_diffusion::{
    BetaSchedule, Clip, Ddim, Diffusion, DiffusionError, DiffusionSpec, Direction, Draw, Langevin, Loss,
    LossSecondMoment, NoiseInterval, Prediction, SampleOptions, Sampler, Spacing, Stream, TimestepSampler,
    VISIBLE_SIGNAL, Variance, Weighting, betas, kept_timesteps, noise_batch, space_timesteps, uniform,
};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

const DDIM: Sampler = Sampler::Ddim(Ddim { eta: 0.0, direction: Direction::FromXStart(NoiseInterval::ALL) });

fn draw(sampler: &TimestepSampler, seed: u64, positions: &[u64]) -> Vec<Draw> {
    sampler.draws(&sampler.units(seed, positions.iter().copied()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn predictions_convert_into_each_other(timesteps in 1usize..600, seed: u64, share in 0.0..1.0f64) {
        let process = linear(timesteps.max(21));
        let t = Tensor::from_slice(&[(share * process.timesteps() as f64) as i64; 2]);
        let (x_start, eps) = (noise(seed, 2, &[1, 3, 3]), noise(!seed, 2, &[1, 3, 3]));
        let x_t = process.q_sample(&x_start, &t, &eps);
        for kind in [Prediction::Eps, Prediction::XStart, Prediction::V] {
            let predicted = process.target(kind, &x_start, &eps, &t);
            prop_assert!(distance(&process.x_start_from(kind, &predicted, &x_t, &t), &x_start) < 1e-9);
            prop_assert!(distance(&process.eps_from(kind, &predicted, &x_t, &t), &eps) < 1e-9);
        }
    }

    #[test]
    fn respacing_keeps_alphas_cumprod(timesteps in 21usize..300, mask in prop::collection::vec(any::<bool>(), 300)) {
        let process = linear(timesteps);
        let kept: Vec<usize> = (0..timesteps).filter(|&t| mask[t]).collect();
        prop_assume!(!kept.is_empty());
        let respaced = process.respaced(&kept).unwrap();
        for (index, &t) in kept.iter().enumerate() {
            let (found, expected) = (respaced.alphas_cumprod[index], process.alphas_cumprod[t]);
            prop_assert!((found - expected).abs() <= 1e-12 * expected);
            prop_assert_eq!(respaced.timestep_map[index], t as i64);
        }
        // Respacing what is respaced still leads to the network's own timesteps.
        let last = respaced.respaced(&[kept.len() - 1]).unwrap();
        prop_assert_eq!(&last.timestep_map, &[kept[kept.len() - 1] as i64]);
    }

    #[test]
    fn section_respacing_keeps_both_ends(timesteps in 2usize..2000, share in 0.0..1.0f64) {
        let count = 2 + (share * (timesteps - 2) as f64) as usize;
        let kept = space_timesteps(timesteps, &count.to_string()).unwrap();
        prop_assert_eq!(kept.len(), count);
        prop_assert_eq!((kept[0], kept[count - 1]), (0, timesteps - 1));
        prop_assert!(kept.windows(2).all(|pair| pair[0] < pair[1]));
        check_spacings(timesteps, count);
    }

    #[test]
    fn timesteps_and_noise_do_not_depend_on_the_world_size(seed: u64, step in 0u64..1 << 40, ranks in 1usize..9) {
        let batch = 8 * ranks as u64;
        let positions: Vec<u64> = (step * batch..(step + 1) * batch).collect();
        let mut history = LossSecondMoment::new(5);
        history.update(&(0..50).map(|i| (i % 5, i as f32)).collect::<Vec<_>>()).unwrap();
        for sampler in [
            TimestepSampler::Uniform { timesteps: 1000 },
            TimestepSampler::Stratified { timesteps: 1000, global_batch: NonZeroU64::new(batch).unwrap() },
            TimestepSampler::LossSecondMoment(history),
        ] {
            let whole = draw(&sampler, seed, &positions);
            let parts: Vec<_> = positions.chunks(8).flat_map(|slice| draw(&sampler, seed, slice)).collect();
            prop_assert_eq!(&whole, &parts);
        }
        let whole = noise_batch(seed, Stream::Noise, &positions, &[1, 2, 2]);
        let parts: Vec<Tensor> = positions.chunks(8).map(|s| noise_batch(seed, Stream::Noise, s, &[1, 2, 2])).collect();
        prop_assert_eq!(whole, Tensor::cat(&parts, 0));
    }

    #[test]
    fn every_stratum_gets_one_draw(seed: u64, step in 0u64..1 << 40) {
        let batch = 50u64;
        let sampler = TimestepSampler::Stratified { timesteps: 1000, global_batch: NonZeroU64::new(batch).unwrap() };
        let positions: Vec<u64> = (step * batch..(step + 1) * batch).collect();
        let mut strata: Vec<usize> = draw(&sampler, seed, &positions).iter().map(|draw| draw.t / 20).collect();
        strata.sort_unstable();
        prop_assert_eq!(strata, (0..50).collect::<Vec<_>>());
    }
}

#[test]
fn the_forward_process_has_the_stated_mean_and_variance() {
    let process = linear(1000);
    let x_start = Tensor::full([4, 1, 100, 100], 0.7, (Kind::Double, Device::Cpu));
    let t = Tensor::from_slice(&[0i64, 99, 500, 999]);
    let x_t = process.q_sample(&x_start, &t, &noise(3, 4, &[1, 100, 100]));
    let q = process.q_mean_variance(&x_start, &t);
    let mean = x_t.mean_dim([1, 2, 3].as_slice(), false, None::<Kind>);
    let variance = x_t.var_dim([1, 2, 3].as_slice(), true, false);
    // Four standard errors of 10,000 draws.
    assert!(distance(&mean, &q.mean.amax([1, 2, 3].as_slice(), false)) < 0.04);
    let ratio = variance / q.variance.view([-1]);
    assert!(distance(&ratio, &ratio.ones_like()) < 0.06);
    assert!(distance(&q.variance.log(), &q.log_variance) < 1e-12);
}

#[test]
fn streams_and_positions_are_independent() {
    let shape = [1, 64, 64];
    let streams = [Stream::Noise, Stream::Sample, Stream::SampleStep(1), Stream::SampleStep(2), Stream::Bound(1)];
    let rows: Vec<Tensor> = streams.iter().map(|&s| noise_batch(1, s, &[0, 1, u64::MAX], &shape)).collect();
    let rows = Tensor::cat(&rows, 0).flatten(1, -1);
    let correlation = rows.matmul(&rows.tr()) / rows.size()[1] as f64;
    // 4096 draws each: the standard error is 1/64, the diagonal's sqrt(2)/64.
    let off = &correlation - Tensor::eye(rows.size()[0], (Kind::Float, Device::Cpu));
    assert!(off.abs().max().double_value(&[]) < 0.1);
    let mean = (0..4000).map(|position| uniform(1, Stream::LabelDropout, position)).sum::<f64>() / 4000.0;
    assert!((mean - 0.5).abs() < 0.02, "{mean}");
}

#[test]
fn importance_weights_leave_the_mean_loss_unchanged() {
    let mut history = LossSecondMoment::new(4);
    let losses = [8.0f32, 2.0, 1.0, 0.5];
    history.update(&(0..40).map(|i| (i % 4, losses[i % 4])).collect::<Vec<_>>()).unwrap();
    history.update(&[(0, f32::NAN)]).unwrap();
    let positions: Vec<u64> = (0..20_000).collect();
    let draws = draw(&TimestepSampler::LossSecondMoment(history.clone()), 5, &positions);
    let mean = draws.iter().map(|d| d.weight * f64::from(losses[d.t])).sum::<f64>() / draws.len() as f64;
    assert!((mean - 2.875).abs() < 0.02, "{mean}");
    let first = draws.iter().filter(|d| d.t == 0).count() as f64 / draws.len() as f64;
    assert!((first - history.weights()[0]).abs() < 0.015, "{first}");

    let stored = serde_json::to_string(&history).unwrap();
    assert_eq!(serde_json::from_str::<LossSecondMoment>(&stored).unwrap(), history);
    assert!(matches!(history.update(&[(4, 1.0)]), Err(DiffusionError::TimestepOutOfRange { t: 4, timesteps: 4 })));
}

/// Every spacing keeps N different timesteps of T, the ends of the process within one stride T/N of its own.
fn check_spacings(timesteps: usize, steps: usize) {
    for spacing in [Spacing::Leading, Spacing::Linspace, Spacing::Trailing] {
        let kept = kept_timesteps(spacing, timesteps, steps).unwrap();
        let what = format!("{spacing:?}, {steps} of {timesteps}: {kept:?}");
        assert_eq!(kept.len(), steps, "{what}");
        assert!(kept.is_sorted_by(|a, b| a < b) && kept[steps - 1] < timesteps, "{what}");
        let (first, missing) = (kept[0], timesteps - 1 - kept[steps - 1]);
        assert!(steps * first.max(missing) <= timesteps, "{what}");
        // diffusers rounds the stride down, which is the same where there is nothing to round.
        if spacing == Spacing::Leading && timesteps.is_multiple_of(steps) {
            assert!(kept.iter().copied().eq((0..steps).map(|i| i * (timesteps / steps))), "{what}");
        }
    }
}

#[test]
fn every_number_of_steps_spans_noise_to_image() {
    for timesteps in 1..=120 {
        for steps in 1..=timesteps {
            check_spacings(timesteps, steps);
            // A whole stride from 0 stays within one stride of the end as well, wherever there is one.
            if let Ok(kept) = space_timesteps(timesteps, &format!("ddim{steps}")) {
                let stride = kept.get(1).copied().unwrap_or(timesteps);
                assert!(timesteps - kept[steps - 1] <= stride, "ddim{steps} of {timesteps}: {kept:?}");
            }
        }
    }
}

#[test]
fn spacings_are_those_of_the_diffusers_schedulers() {
    let spaced = |spacing: Spacing| kept_timesteps(spacing, 1000, 4).unwrap();
    assert_eq!(spaced(Spacing::Leading), [0, 250, 500, 750]);
    assert_eq!(spaced(Spacing::Linspace), [0, 333, 666, 999]);
    assert_eq!(spaced(Spacing::Trailing), [249, 499, 749, 999]);
    assert_eq!(kept_timesteps(Spacing::Trailing, 10, 4).unwrap(), [1, 4, 7, 9]);
    // Where N does not divide T they stop far short of the noise, at 3 and at 66.
    assert_eq!(kept_timesteps(Spacing::Leading, 6, 4).unwrap(), [0, 1, 3, 4]);
    assert_eq!(kept_timesteps(Spacing::Leading, 100, 34).unwrap().last(), Some(&97));
}

#[test]
fn guidance_moves_the_prediction_and_keeps_the_variance() {
    let betas = betas(&BetaSchedule::Cosine, 10).unwrap();
    let hybrid = DiffusionSpec { variance: Variance::LearnedRange, loss: Loss::Hybrid { lambda: 0.001 }, ..SIMPLE };
    let process = Diffusion::new(betas, hybrid, Device::Cpu).unwrap();
    let (cond, uncond) = (noise(1, 2, &[2, 2, 2]), noise(2, 2, &[2, 2, 2]));
    let guided = process.guide(&cond, &uncond, 3.0, 0.0).unwrap();
    let expected = cond.narrow(1, 0, 1) * 3.0 - uncond.narrow(1, 0, 1) * 2.0;
    assert!(distance(&guided.narrow(1, 0, 1), &expected) < 1e-12);
    assert_eq!(guided.narrow(1, 1, 1), cond.narrow(1, 1, 1));
}

#[test]
fn clipping_keeps_x_start_in_range() {
    let process = linear(100);
    let x = noise(1, 2, &[1, 8, 8]) * 3.0;
    let t = Tensor::from_slice(&[50i64, 50]);
    let predicted = |clip| process.p_mean_variance(&x.zeros_like(), &x, &t, clip).unwrap().pred_x_start;
    let free = predicted(Clip::None);
    assert!(free.abs().max().double_value(&[]) > 2.0);
    assert_eq!(predicted(Clip::Unit), free.clamp(-1.0, 1.0));
    // The whole range as the quantile only rescales each sample to its own largest value.
    let largest = free.abs().amax([1, 2, 3].as_slice(), true);
    assert!(distance(&predicted(Clip::Dynamic(1.0)), &(&free / largest)) < 1e-12);
    assert!(predicted(Clip::Dynamic(0.9)).abs().max().double_value(&[]) <= 1.0);

    // By hand: of 1, 2, 3, 4 the 0.5-quantile is 2.5 and the 0.9-quantile 3.7; an image within range is only clipped.
    let image = Tensor::from_slice(&[1.0, -2.0, 3.0, -4.0, 0.1, 0.2, -0.3, 0.9]).view([2, 1, 2, 2]);
    let x_start = |quantile| {
        let settings = DiffusionSpec { prediction: Prediction::XStart, ..SIMPLE };
        let process = Diffusion::new(vec![0.1; 3], settings, Device::Cpu).unwrap();
        let t = Tensor::from_slice(&[1i64, 1]);
        process.p_mean_variance(&image, &image, &t, Clip::Dynamic(quantile)).unwrap().pred_x_start
    };
    for (quantile, bound) in [(0.5, 2.5), (0.9, 3.7), (1.0, 4.0)] {
        let thresholded = [1.0f64, -2.0, 3.0, -4.0].map(|x| x.clamp(-bound, bound) / bound);
        let expected = [thresholded, [0.1, 0.2, -0.3, 0.9]].concat();
        assert!(distance(&x_start(quantile), &Tensor::from_slice(&expected).view([2, 1, 2, 2])) < 1e-12, "{quantile}");
    }
    let refused = process.p_mean_variance(&x, &x, &t, Clip::Dynamic(0.0));
    assert!(matches!(refused, Err(DiffusionError::OutOfRange { .. })));
}

#[test]
fn the_hybrid_loss_leaves_the_mean_to_the_squared_error() {
    let betas = betas(&BetaSchedule::Cosine, 100).unwrap();
    let settings = |lambda| DiffusionSpec { variance: Variance::LearnedRange, loss: Loss::Hybrid { lambda }, ..SIMPLE };
    let t = Tensor::from_slice(&[0i64, 60]);
    let (x_start, eps) = (noise(1, 2, &[1, 4, 4]).clamp(-1.0, 1.0), noise(2, 2, &[1, 4, 4]));
    let gradient = |lambda| {
        let process = Diffusion::new(betas.clone(), settings(lambda), Device::Cpu).unwrap();
        let output = noise(3, 2, &[2, 4, 4]).set_requires_grad(true);
        let x_t = process.q_sample(&x_start, &t, &eps);
        let terms = process.training_terms(&output, &x_start, &x_t, &t, &eps).unwrap();
        // lambda multiplies the bound's sum over all T timesteps.
        let share = (&terms.loss - &terms.mse) / terms.vb;
        assert!(distance(&share, &(share.ones_like() * lambda * 100.0)) < 1e-9);
        terms.loss.sum(Kind::Double).backward();
        output.grad()
    };
    let (small, large) = (gradient(0.001), gradient(0.1));
    assert_eq!(small.narrow(1, 0, 1), large.narrow(1, 0, 1));
    assert!(distance(&(small.narrow(1, 1, 1) * 100.0), &large.narrow(1, 1, 1)) < 1e-9);
    assert!(large.narrow(1, 1, 1).abs().min().double_value(&[]) > 0.0);
}

#[test]
fn weights_follow_their_papers_whatever_is_predicted() {
    let betas = betas(&BetaSchedule::linear(100), 100).unwrap();
    let steps = [1usize, 30, 90];
    let t = Tensor::from_slice(&steps.map(|t| t as i64));
    let (x_start, eps) = (noise(1, 3, &[1, 4, 4]), noise(2, 3, &[1, 4, 4]));
    let wrong = &x_start + noise(3, 3, &[1, 4, 4]) * 0.1;
    let process = Diffusion::new(betas.clone(), SIMPLE, Device::Cpu).unwrap();
    let snr = steps.map(|t| process.alphas_cumprod[t] / (1.0 - process.alphas_cumprod[t]));
    assert!(snr[0] > 5.0 && snr[2] < 5.0, "both sides of min-SNR's ceiling are looked at");
    // Each paper's weight on its own terms: Hang et al. 2023 of x_0's error, Choi et al. 2022, eq. 8, of eps's.
    let of_x_start: [(Weighting, [f64; 3]); 3] = [
        (Weighting::MinSnr { gamma: 5.0 }, snr.map(|snr| if snr > 5.0 { 5.0 } else { snr })),
        (Weighting::P2 { gamma: 1.0, k: 1.0 }, snr.map(|snr| snr * (1.0 / (1.0 + snr)))),
        (Weighting::P2 { gamma: 0.5, k: 2.0 }, snr.map(|snr| snr * (1.0 / (2.0 + snr).sqrt()))),
    ];
    for (weighting, expected) in of_x_start {
        for prediction in [Prediction::XStart, Prediction::Eps, Prediction::V] {
            let process =
                Diffusion::new(betas.clone(), DiffusionSpec { prediction, weighting, ..SIMPLE }, Device::Cpu).unwrap();
            let x_t = process.q_sample(&x_start, &t, &eps);
            let wrong_eps = process.eps_from(Prediction::XStart, &wrong, &x_t, &t);
            let output = process.target(prediction, &wrong, &wrong_eps, &t);
            let terms = process.training_terms(&output, &x_start, &x_t, &t, &eps).unwrap();
            let error = (&x_start - &wrong).square().mean_dim([1i64, 2, 3].as_slice(), false, None);
            let weights = terms.loss / error;
            assert!(distance(&weights, &Tensor::from_slice(&expected)) < 1e-9, "{weighting:?}, {prediction:?}");
        }
    }
}

#[test]
fn bad_input_is_refused_by_name() {
    let beta = |schedule: BetaSchedule, timesteps| betas(&schedule, timesteps).unwrap_err().to_string();
    assert!(beta(BetaSchedule::List(vec![0.1, 1.0]), 2).starts_with("betas[1] = 1 is"));
    assert!(beta(BetaSchedule::Constant(f64::NAN), 3).starts_with("beta_end = NaN is"));
    assert!(beta(BetaSchedule::List(vec![0.1]), 2).contains("betas has 1 entries for timesteps = 2"));
    assert!(beta(BetaSchedule::Cosine, 0).contains("timesteps = 0 is out of range"));
    // 0.02 · 1000/T leaves (0, 1) for short processes.
    assert!(beta(BetaSchedule::linear(20), 20).starts_with("beta_end = 1 is"));

    for spec in ["ddim300", "ddim0", "0", "ten", "", "501,1", "-3"] {
        let error = space_timesteps(1000, spec).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot respace 1000 timesteps as \"{spec}\"")), "{error}");
    }
    for steps in [0, 11] {
        assert!(matches!(kept_timesteps(Spacing::Leading, 10, steps), Err(DiffusionError::Steps { .. })));
    }
    let process = linear(50);
    for (kept, at) in [(vec![3, 3], 1), (vec![50], 0)] {
        let refused = process.respaced(&kept);
        assert!(matches!(refused, Err(DiffusionError::KeptTimesteps { index, .. }) if index == at));
    }
    assert!(matches!(process.respaced(&[]), Err(DiffusionError::NoTimesteps)));

    let refused = |change: &dyn Fn(&mut DiffusionSpec)| {
        let mut settings = SIMPLE;
        change(&mut settings);
        Diffusion::new(vec![0.1; 3], settings, Device::Cpu).is_err()
    };
    assert!(refused(&|s| s.variance = Variance::LearnedRange));
    assert!(refused(&|s| s.loss = Loss::Hybrid { lambda: 0.001 }));
    assert!(refused(&|s| s.weighting = Weighting::MinSnr { gamma: 0.0 }));
    assert!(refused(&|s| s.weighting = Weighting::P2 { gamma: -1.0, k: 1.0 }));
    assert!(refused(&|s| s.weighting = Weighting::P2 { gamma: 1.0, k: 0.0 }));
    assert!(refused(&|s| (s.loss, s.weighting) = (Loss::Vlb, Weighting::P2 { gamma: 1.0, k: 1.0 })));
    assert!(!refused(&|_| ()));

    let x = noise(1, 2, &[1, 2, 2]);
    let t = Tensor::from_slice(&[0i64, 1]);
    let wide = Tensor::cat(&[&x, &x], 1);
    let refused = process.p_mean_variance(&wide, &x, &t, Clip::None);
    assert!(matches!(refused, Err(DiffusionError::ModelShape { .. })));
    let ddim = Ddim { eta: 1.5, direction: Direction::FromModel };
    let refused = process.ddim_sample(&x, &x, &t, ddim, Clip::None, None);
    assert!(matches!(refused, Err(DiffusionError::OutOfRange { .. })));
    let options =
        SampleOptions { sampler: DDIM, corrector: None, clip: Clip::None, seed: 0, indices: &[0], classifier: None };
    let refused = process.sample(&options, x.shallow_clone(), |x, _| Ok(x.shallow_clone()), |_| ());
    assert!(matches!(refused, Err(DiffusionError::SampleIndices { indices: 1, batch: 2 })));
    let options = SampleOptions { indices: &[0, 1], ..options };
    let corrected = |sampler, snr| {
        let corrector = Some(Langevin { steps: 1, snr });
        let options = SampleOptions { sampler, corrector, ..options };
        process.sample(&options, x.shallow_clone(), |x, _| Ok(x.shallow_clone()), |_| ())
    };
    assert!(matches!(corrected(Sampler::DpmSolver, 0.1), Err(DiffusionError::Conflict { .. })));
    for snr in [0.0, 1.0, f64::NAN] {
        assert!(matches!(corrected(Sampler::Heun, snr), Err(DiffusionError::OutOfRange { .. })));
    }
    let failed = process.sample(&options, x, |_, _| Err("no such layer".into()), |_| ());
    assert!(matches!(failed, Err(DiffusionError::Model { t: 49, .. })));
}

#[test]
fn short_processes_and_visible_signal() {
    let one = Diffusion::new(vec![0.5], SIMPLE, Device::Cpu).unwrap();
    assert!(one.posterior_log_variance_clipped[0].is_finite());
    assert!(one.terminal_signal() > VISIBLE_SIGNAL);
    assert!(linear(1000).terminal_signal() < VISIBLE_SIGNAL);
    assert!(linear(100).terminal_signal() < VISIBLE_SIGNAL);
}
