//! Numbers made with the papers' own public implementations, reproduced.

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use common::bound_model;
use ddpm_diffusion::{
    BetaSchedule, BoundTerms, Clip, Ddim, Diffusion, DiffusionSpec, Direction, Loss, LossSecondMoment, NoiseInterval,
    Prediction, Variance, Weighting, betas, space_timesteps,
};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

fn json(name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(path(name)).unwrap()).unwrap()
}

fn tensors(name: &str) -> HashMap<String, Tensor> {
    Tensor::read_safetensors(path(name)).unwrap().into_iter().collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn close(name: &str, found: f64, expected: f64, relative: f64) {
    let tolerance = relative * expected.abs().max(f64::MIN_POSITIVE);
    assert!((found - expected).abs() <= tolerance, "{name}: {found} where {expected} was due");
}

/// Compares each element with `tolerance` times its expected magnitude, or times a floor where that is small.
fn check(name: &str, found: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(found.size(), expected.size(), "{name}: shape");
    let expected = expected.to_kind(Kind::Double);
    // Losses and terms of the bound span decades, so each is held to its own size. Images are about 1, and the prior's term
    // is a difference of nearly equal numbers in the reference.
    let is_loss = ["vb", "mse", "loss"].iter().any(|loss| name.ends_with(loss));
    let floor = if is_loss { 0.01 * expected.square().mean(Kind::Double).sqrt().double_value(&[]) } else { 1.0 };
    let scaled = (found.to_kind(Kind::Double) - &expected).abs() / expected.abs().clamp_min(floor);
    let worst = scaled.max().double_value(&[]);
    assert!(worst <= tolerance, "{name}: off by {worst:e}");
}

fn settings(prediction: Prediction, variance: Variance, loss: Loss) -> DiffusionSpec {
    DiffusionSpec { prediction, variance, loss, weighting: Weighting::None }
}

fn process(schedule: BetaSchedule, timesteps: usize, settings: DiffusionSpec) -> Diffusion {
    Diffusion::new(betas(&schedule, timesteps).unwrap(), settings, Device::Cpu).unwrap()
}

#[test]
fn schedules_match_to_the_last_digits() {
    let golden = json("schedules.json");
    let ends = (1e-4, 0.02);
    // The diffusers tables were computed in f32.
    for (name, schedule, timesteps, relative) in [
        ("linear-1000", BetaSchedule::linear(1000), 1000, 1e-9),
        ("linear-4000", BetaSchedule::linear(4000), 4000, 1e-9),
        ("cosine-1000", BetaSchedule::Cosine, 1000, 1e-9),
        ("cosine-4000", BetaSchedule::Cosine, 4000, 1e-9),
        ("diffusers:scaled_linear-1000", BetaSchedule::Quadratic { start: ends.0, end: ends.1 }, 1000, 1e-5),
        ("diffusers:sigmoid-1000", BetaSchedule::Sigmoid { start: ends.0, end: ends.1 }, 1000, 1e-5),
    ] {
        let simple = settings(Prediction::Eps, Variance::FixedSmall, Loss::Simple);
        let ours = process(schedule, timesteps, simple);
        let table = &golden["tables"][name];
        let index: Vec<usize> = numbers(&table["index"]).into_iter().map(|i| i as usize).collect();
        for (key, values) in [
            ("betas", &ours.betas),
            ("alphas_cumprod", &ours.alphas_cumprod),
            ("posterior_variance", &ours.posterior_variance),
            ("posterior_log_variance_clipped", &ours.posterior_log_variance_clipped),
            ("posterior_mean_coef1", &ours.posterior_mean_coef1),
            ("posterior_mean_coef2", &ours.posterior_mean_coef2),
        ] {
            let Some(expected) = table.get(key) else { continue };
            for (&t, expected) in index.iter().zip(numbers(expected)) {
                close(&format!("{name} {key}[{t}]"), values[t], expected, relative);
            }
        }
    }
}

#[test]
fn respacing_matches_exactly() {
    for (name, expected) in json("respacing.json").as_object().unwrap() {
        let (timesteps, spec) = name.split_once(':').unwrap();
        let found = space_timesteps(timesteps.parse().unwrap(), spec).unwrap();
        let expected: Vec<usize> = numbers(expected).into_iter().map(|t| t as usize).collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn terms_match_under_the_linear_schedule() {
    check_terms("terms-linear-1000.safetensors", &BetaSchedule::linear(1000));
}

#[test]
fn terms_match_under_the_cosine_schedule() {
    check_terms("terms-cosine-1000.safetensors", &BetaSchedule::Cosine);
}

fn check_terms(file: &str, schedule: &BetaSchedule) {
    // The reference casts its tables to f32, which x_0 from eps at the last timesteps shows most.
    const TOLERANCE: f64 = 1e-4;
    let golden = tensors(file);
    let [t, x_start, noise, x_t, step_noise] = ["t", "x_start", "noise", "x_t", "step_noise"].map(|k| &golden[k]);
    let mut compared = 8; // the inputs: t, x_start, noise, x_t, step_noise, v and the two outputs
    let mut compare = |name: &str, found: &Tensor, tolerance: f64| {
        check(&format!("{file} {name}"), found, &golden[name], tolerance);
        compared += 1;
    };

    let diffusion = |prediction, variance, loss| process(schedule.clone(), 1000, settings(prediction, variance, loss));
    let plain = diffusion(Prediction::Eps, Variance::FixedSmall, Loss::Simple);
    check("x_t", &plain.q_sample(x_start, t, noise), x_t, TOLERANCE);
    let posterior = plain.q_posterior_mean_variance(x_start, x_t, t);
    compare("posterior_mean", &posterior.mean, TOLERANCE);
    compare("posterior_variance", &posterior.variance.expand_as(x_t), TOLERANCE);
    compare("posterior_log_variance", &posterior.log_variance.expand_as(x_t), TOLERANCE);
    compare("prior_bpd", &plain.prior_bpd(x_start), TOLERANCE);

    for (output, prediction) in [("eps", Prediction::Eps), ("x0", Prediction::XStart)] {
        for (name, variance) in [
            ("fixed_small", Variance::FixedSmall),
            ("fixed_large", Variance::FixedLarge),
            ("learned_range", Variance::LearnedRange),
        ] {
            let prefix = format!("{output}.{name}");
            if !golden.contains_key(&format!("{prefix}.mean")) {
                continue;
            }
            let learned = variance == Variance::LearnedRange;
            let predicted = &golden[&format!("{output}_hat")];
            let model_output =
                if learned { Tensor::cat(&[predicted, &golden["v"]], 1) } else { predicted.shallow_clone() };

            let vlb = diffusion(prediction, variance, Loss::Vlb);
            let p = vlb.p_mean_variance(&model_output, x_t, t, Clip::Unit).unwrap();
            compare(&format!("{prefix}.mean"), &p.mean, TOLERANCE);
            compare(&format!("{prefix}.log_variance"), &p.log_variance, TOLERANCE);
            compare(&format!("{prefix}.pred_xstart"), &p.pred_x_start, TOLERANCE);
            let sample = vlb.p_sample(&model_output, x_t, t, Clip::Unit, Some(step_noise), None).unwrap();
            compare(&format!("{prefix}.p_sample"), &sample.sample, TOLERANCE);
            for eta in [0.0, 0.5, 1.0] {
                let ddim = Ddim { eta, direction: Direction::FromXStart(NoiseInterval::ALL) };
                let step = vlb.ddim_sample(&model_output, x_t, t, ddim, Clip::Unit, Some(step_noise)).unwrap();
                compare(&format!("{prefix}.ddim_eta{eta:.1}"), &step.sample, TOLERANCE);
            }

            // In f32, because the decoder's far tails below its resolution are clamped in the reference.
            let single = |x: &Tensor| x.to_kind(Kind::Float);
            let terms = |loss| {
                let diffusion = diffusion(prediction, variance, loss);
                diffusion
                    .training_terms(&single(&model_output), &single(x_start), &single(x_t), t, &single(noise))
                    .unwrap()
            };
            let bound = terms(Loss::Vlb);
            compare(&format!("{prefix}.kl.loss"), &bound.vb, TOLERANCE);
            // T times a rounding of the reference's KL.
            compare(&format!("{prefix}.rescaled_kl.loss"), &bound.loss, 1000.0 * 2e-7);
            // What lambda is in the two published losses: the bound's term itself, and T/1000 of it.
            for (loss, lambda) in [("mse", 1.0 / 1000.0), ("rescaled_mse", 0.001)] {
                let terms = terms(if learned { Loss::Hybrid { lambda } } else { Loss::Simple });
                compare(&format!("{prefix}.{loss}.loss"), &terms.loss, TOLERANCE);
                compare(&format!("{prefix}.{loss}.mse"), &terms.mse, TOLERANCE);
                if learned {
                    compare(&format!("{prefix}.{loss}.vb"), &terms.vb, TOLERANCE);
                }
            }
        }
    }
    assert_eq!(compared, golden.len(), "some of the file's tensors were not compared");
}

#[test]
fn the_bound_matches_term_by_term() {
    for (file, schedule, timesteps) in [
        ("bound-linear-40.safetensors", BetaSchedule::linear(40), 40),
        ("bound-cosine-25.safetensors", BetaSchedule::Cosine, 25),
    ] {
        let golden = tensors(file);
        let hybrid = settings(Prediction::Eps, Variance::LearnedRange, Loss::Hybrid { lambda: 0.001 });
        let diffusion = process(schedule, timesteps, hybrid);
        let model = |x: &Tensor, t: &Tensor| bound_model(timesteps, x, t);
        let x_start = &golden["x_start"];
        check("prior_bpd", &diffusion.prior_bpd(x_start), &golden["prior_bpd"], 1e-5);
        let term = |t: i64| {
            let full = Tensor::full([x_start.size()[0]], t, (Kind::Int64, Device::Cpu));
            diffusion.bound_terms(x_start, &full, &golden["noise_by_t"].get(t), Clip::Unit, model).unwrap()
        };
        // The file's columns run from T - 1 down.
        let terms: Vec<BoundTerms> = (0..timesteps as i64).rev().map(term).collect();
        let columns =
            |column: fn(&BoundTerms) -> &Tensor| Tensor::stack(&terms.iter().map(column).collect::<Vec<_>>(), 1);
        check(&format!("{file} vb"), &columns(|term| &term.vb), &golden["vb"], 1e-4);
        check(&format!("{file} mse"), &columns(|term| &term.mse), &golden["mse"], 1e-4);
        check(&format!("{file} xstart_mse"), &columns(|term| &term.xstart_mse), &golden["xstart_mse"], 1e-4);
    }
}

#[test]
fn loss_aware_weights_match_batch_by_batch() {
    let golden = json("resampler.json");
    let mut history = LossSecondMoment::new(golden["T"].as_u64().unwrap() as usize);
    let compare = |history: &LossSecondMoment, expected: &Value, name: &str| {
        assert_eq!(history.warmed_up(), expected["warmed_up"].as_bool().unwrap(), "{name}");
        for (t, (found, expected)) in history.weights().iter().zip(numbers(&expected["weights"])).enumerate() {
            close(&format!("{name} weights[{t}]"), *found, expected, 1e-12);
        }
    };
    for (fed, batch) in golden["feed"].as_array().unwrap().iter().enumerate() {
        if let 3 | 20 = fed {
            let name = format!("resampler-at-{fed}.json");
            compare(&history, &json(&name), &name);
        }
        let (t, losses) = (numbers(&batch[0]), numbers(&batch[1]));
        let pairs: Vec<(usize, f32)> = t.iter().zip(losses).map(|(&t, loss)| (t as usize, loss as f32)).collect();
        history.update(&pairs).unwrap();
    }
    compare(&history, &golden, "resampler.json");
}
