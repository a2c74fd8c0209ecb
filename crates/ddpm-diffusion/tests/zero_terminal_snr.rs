//! Schedules rescaled to zero terminal SNR: as diffusers rescales them, and every computation at abar = 0.

mod common;

use std::fs;
use std::path::PathBuf;

use common::{SIMPLE, SPREAD, distance, mean_square, noise};
use ddpm_diffusion::{
    BetaSchedule, ClassGradient, Clip, Ddim, Diffusion, DiffusionError, DiffusionSpec, Direction, Langevin, Loss,
    ModelError, NoiseInterval, Prediction, SampleOptions, Sampler, Spacing, Variance, Weighting, betas, kept_timesteps,
};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

const DDIM: Sampler = Sampler::Ddim(Ddim { eta: 0.0, direction: Direction::FromModel });

fn golden() -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/guidance.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn rescaled(schedule: BetaSchedule) -> BetaSchedule {
    BetaSchedule::ZeroTerminalSnr(Box::new(schedule))
}

/// Ho et al.'s schedule of 1000 timesteps, rescaled.
fn process(prediction: Prediction) -> Diffusion {
    let spec = DiffusionSpec { prediction, ..SIMPLE };
    Diffusion::new(betas(&rescaled(BetaSchedule::linear(1000)), 1000).unwrap(), spec, Device::Cpu).unwrap()
}

fn short(whole: &Diffusion, steps: usize) -> Diffusion {
    whole.respaced(&kept_timesteps(Spacing::Trailing, whole.timesteps(), steps).unwrap()).unwrap()
}

fn options(sampler: Sampler, indices: &[u64]) -> SampleOptions<'_> {
    SampleOptions { sampler, corrector: None, clip: Clip::None, seed: 7, indices, classifier: None }
}

fn is_finite(x: &Tensor) -> bool {
    bool::try_from(x.isfinite().all()).unwrap()
}

/// The best prediction where x_0 is normal with mean 0 and standard deviation `SPREAD`.
fn gaussian(whole: &Diffusion) -> impl Fn(&Tensor, &Tensor) -> Result<Tensor, ModelError> {
    let (abar, prediction) = (Tensor::from_slice(&whole.alphas_cumprod), whole.spec().prediction);
    move |x, t| {
        let abar = abar.index_select(0, t).view([-1, 1, 1, 1]);
        let one_minus: Tensor = 1.0 - &abar;
        let variance = &abar * (SPREAD * SPREAD) + &one_minus;
        let x_start = x * abar.sqrt() * (SPREAD * SPREAD) / &variance;
        let eps = x * one_minus.sqrt() / variance;
        Ok(match prediction {
            Prediction::XStart => x_start,
            _ => abar.sqrt() * eps - one_minus.sqrt() * x_start,
        })
    }
}

#[test]
fn betas_are_those_of_diffusers() {
    let ends = (1e-4, 0.02);
    for (name, timesteps, schedule) in [
        ("linear-1000", 1000, BetaSchedule::linear(1000)),
        ("scaled_linear-1000", 1000, BetaSchedule::Quadratic { start: ends.0, end: ends.1 }),
        ("squaredcos_cap_v2-1000", 1000, BetaSchedule::Cosine),
        ("linear-100", 100, BetaSchedule::Linear { start: 1e-3, end: 0.2 }),
    ] {
        let original = betas(&schedule, timesteps).unwrap();
        let betas = betas(&rescaled(schedule), timesteps).unwrap();
        let spec = DiffusionSpec { prediction: Prediction::V, ..SIMPLE };
        let process = Diffusion::new(betas.clone(), spec, Device::Cpu).unwrap();
        let golden = &golden()["schedules"][name];
        let index: Vec<usize> = numbers(&golden["index"]).iter().map(|t| *t as usize).collect();
        for (key, found, tolerance) in [
            ("betas", &betas, 1e-9),
            ("alphas_cumprod", &process.alphas_cumprod, 1e-9),
            // Computed in single precision by differences of small numbers.
            ("scheduler_alphas_cumprod", &process.alphas_cumprod, 2e-5),
        ] {
            for (&t, expected) in index.iter().zip(numbers(&golden[key])) {
                let off = (found[t] - expected).abs();
                assert!(off <= tolerance * expected, "{name} {key}[{t}]: {} where {expected} was due", found[t]);
            }
        }
        assert_eq!((betas[timesteps - 1], process.terminal_signal()), (1.0, 0.0), "{name}");
        assert!((betas[0] - original[0]).abs() < 1e-12, "{name}: the first beta stays");
        assert!(process.sigma(timesteps - 1).is_infinite());
    }
}

#[test]
fn images_are_those_of_the_schedulers_of_diffusers() {
    let golden = golden();
    let x = Tensor::from_slice(&numbers(&golden["x"])).view([2, 1, 4, 4]);
    let model = |x: &Tensor, t: &Tensor| -> Result<Tensor, ModelError> {
        let t = t.to_kind(Kind::Double).view([-1, 1, 1, 1]);
        Ok((x * 1.3 + t * 0.002).sin() - x * 0.4)
    };
    let draws = golden["draws"].as_array().unwrap();
    assert_eq!(draws.len(), 8);
    for draw in draws {
        let prediction = if draw["prediction"] == "sample" { Prediction::XStart } else { Prediction::V };
        let process = short(&process(prediction), draw["steps"].as_u64().unwrap() as usize);
        let timesteps: Vec<i64> = numbers(&draw["timesteps"]).iter().rev().map(|t| *t as i64).collect();
        assert_eq!(process.timestep_map, timesteps);
        let mut states = Vec::new();
        let mut last = x.copy();
        if draw["kind"] == "DDIMScheduler" {
            last = process.sample(&options(DDIM, &[0, 1]), last, model, |step| states.push(step.x.copy())).unwrap();
        } else {
            for index in (0..process.timesteps()).rev() {
                let t = process.full_t(index, 2);
                let output = model(&last, &process.model_timesteps(&t)).unwrap();
                last = process.p_sample(&output, &last, &t, Clip::None, None, None).unwrap().sample;
                states.push(last.copy());
            }
        }
        for (name, found) in [("first", &states[0]), ("last", &last)] {
            let expected = Tensor::from_slice(&numbers(&draw[name])).view([2, 1, 4, 4]);
            let off = distance(found, &expected);
            // Their alphas_cumprod is in single precision.
            assert!(off < 1e-4, "{} of {}, {} steps: off by {off}", draw["kind"], draw["prediction"], draw["steps"]);
        }
    }
}

#[test]
fn every_sampler_draws_the_data() {
    let x = noise(1, 2, &[1, 40, 40]);
    for prediction in [Prediction::V, Prediction::XStart] {
        let whole = process(prediction);
        for (sampler, tolerance) in [
            (DDIM, 0.05),
            (Sampler::Ddim(Ddim { eta: 0.0, direction: Direction::FromXStart(NoiseInterval::ALL) }), 0.05),
            (Sampler::Ddim(Ddim { eta: 1.0, direction: Direction::FromModel }), 0.05),
            (Sampler::Ancestral, 0.05),
            (Sampler::Heun, 0.02),
            (Sampler::DpmSolver, 0.02),
        ] {
            let process = short(&whole, 200);
            let draw = |corrector| {
                let options = SampleOptions { corrector, ..options(sampler, &[0, 1]) };
                process.sample(&options, x.copy(), gaussian(&whole), |_| ()).unwrap()
            };
            let ratio = mean_square(&draw(None)).sqrt() / (SPREAD * mean_square(&x).sqrt());
            assert!((ratio - 1.0).abs() < tolerance, "{prediction:?}, {sampler:?}: {ratio}");
            if sampler != Sampler::DpmSolver {
                let corrected = draw(Some(Langevin { steps: 1, snr: 0.1 }));
                assert!(is_finite(&corrected), "{prediction:?}, {sampler:?} with a corrector");
            }
            // One step: the first is also the last.
            let one = short(&whole, 1).sample(&options(sampler, &[0, 1]), x.copy(), gaussian(&whole), |_| ()).unwrap();
            assert!(mean_square(&one) < 1e-20, "the mean of the data is 0");
        }
    }
}

#[test]
fn a_classifier_says_nothing_about_pure_noise() {
    let whole = process(Prediction::V);
    let process = short(&whole, 50);
    let given = std::cell::RefCell::new(Vec::new());
    let gradient = |x: &Tensor, t: &Tensor| {
        given.borrow_mut().push(t.int64_value(&[0]));
        Ok(x.ones_like() * 0.1)
    };
    for sampler in [DDIM, Sampler::Ancestral, Sampler::DpmSolver] {
        given.borrow_mut().clear();
        let options = SampleOptions { classifier: Some(ClassGradient(&gradient)), ..options(sampler, &[0]) };
        let images = process.sample(&options, noise(1, 1, &[1, 4, 4]), gaussian(&whole), |_| ()).unwrap();
        assert!(is_finite(&images), "{sampler:?}");
        assert_eq!((given.borrow().len(), given.borrow()[0]), (49, 979));
    }
}

#[test]
fn encoding_reaches_pure_noise_and_comes_back() {
    for prediction in [Prediction::V, Prediction::XStart] {
        let whole = process(prediction);
        let x = noise(1, 2, &[1, 8, 8]) * SPREAD;
        let process = short(&whole, 100);
        let latent = process.encode(&x, gaussian(&whole)).unwrap();
        assert!((mean_square(&latent) - 1.0).abs() < 0.3);
        let back = process.sample(&options(DDIM, &[0, 1]), latent, gaussian(&whole), |_| ()).unwrap();
        let error = (mean_square(&(back - &x)) / mean_square(&x)).sqrt();
        assert!(error < 0.02, "{prediction:?}: {error}");
        let refused = short(&whole, 1).encode(&x, gaussian(&whole));
        assert!(matches!(refused, Err(DiffusionError::Conflict { .. })));
    }
}

#[test]
fn losses_and_bounds_are_finite_and_right_at_the_last_timestep() {
    let x_start = noise(1, 2, &[1, 4, 4]).clamp(-1.0, 1.0);
    let eps = noise(2, 2, &[1, 4, 4]);
    let betas = betas(&rescaled(BetaSchedule::Cosine), 100).unwrap();
    for prediction in [Prediction::V, Prediction::XStart] {
        for (variance, loss) in [
            (Variance::FixedSmall, Loss::Simple),
            (Variance::FixedLarge, Loss::Simple),
            (Variance::LearnedRange, Loss::Hybrid { lambda: 0.001 }),
            (Variance::LearnedRange, Loss::Vlb),
        ] {
            let spec = DiffusionSpec { prediction, variance, loss, ..SIMPLE };
            let process = Diffusion::new(betas.clone(), spec, Device::Cpu).unwrap();
            let what = format!("{prediction:?}, {variance:?}, {loss:?}");
            let t = Tensor::from_slice(&[99i64, 98]);
            let x_t = process.q_sample(&x_start, &t, &eps);
            assert_eq!(x_t.narrow(0, 0, 1), eps.narrow(0, 0, 1), "{what}: x_T is the noise");
            let channels = variance.model_channels(1);
            let output = noise(3, 2, &[channels, 4, 4]).set_requires_grad(true);
            let terms = process.training_terms(&output, &x_start, &x_t, &t, &eps).unwrap();
            assert!(is_finite(&terms.loss) && is_finite(&terms.vb) && is_finite(&terms.mse), "{what}");
            terms.loss.sum(Kind::Double).backward();
            assert!(is_finite(&output.grad()), "{what}");
            let model = |_: &Tensor, _: &Tensor| Ok(output.detach());
            let bound = process.bound_terms(&x_start, &t, &eps, Clip::Unit, model).unwrap();
            assert!(is_finite(&bound.vb) && is_finite(&bound.xstart_mse), "{what}");
            assert!(bound.mse.double_value(&[0]) < 1e-20, "{what}: pure noise is its own eps");
            assert!(process.prior_bpd(&x_start).abs().max().double_value(&[]) < 1e-12, "{what}: x_T reveals nothing");
            if variance == Variance::FixedSmall {
                // The divergence of two normals with variance 1 - abar and means sqrt(abar) x_0, at t - 1.
                let abar = process.alphas_cumprod[98];
                let sign = if prediction == Prediction::V { -1.0 } else { 1.0 };
                let wrong = (&x_start - output.detach() * sign).narrow(0, 0, 1);
                let expected = abar * mean_square(&wrong) / (2.0 * (1.0 - abar)) / std::f64::consts::LN_2;
                let found = terms.vb.double_value(&[0]);
                assert!((found - expected).abs() < 1e-9 * expected, "{what}: {found} where {expected} was due");
            }
        }
    }
}

#[test]
fn what_cannot_work_is_refused() {
    let betas_of = |timesteps| betas(&rescaled(BetaSchedule::Constant(0.1)), timesteps);
    assert!(betas_of(1).unwrap_err().to_string().contains("at least 2 for a rescaled schedule"));
    let refused = |spec| Diffusion::new(betas_of(10).unwrap(), spec, Device::Cpu).unwrap_err().to_string();
    let eps = refused(SIMPLE);
    assert!(eps.starts_with("predict = \"eps\" does not work with zero_terminal_snr"), "{eps}");
    let weighting = Weighting::MinSnr { gamma: 5.0 };
    let weighted = refused(DiffusionSpec { prediction: Prediction::V, weighting, ..SIMPLE });
    assert!(weighted.contains("0 at the last timestep"), "{weighted}");
    // A beta of 1 anywhere else.
    let spec = DiffusionSpec { prediction: Prediction::V, ..SIMPLE };
    let early = Diffusion::new(vec![0.1, 1.0, 0.1], spec, Device::Cpu).unwrap_err();
    assert!(matches!(early, DiffusionError::BetaOutOfRange { index: 1, .. }));
}
