//! Guidance away from a weaker prediction: against diffusers' rescaling, against its formula, and in its limits.

mod common;

use std::fs;
use std::path::PathBuf;

use common::{SIMPLE, distance, linear, noise};
use ddpm_diffusion::{BetaSchedule, Diffusion, DiffusionError, DiffusionSpec, Loss, Prediction, Variance, betas};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

const SHAPE: [i64; 4] = [2, 1, 4, 4];

fn image(value: &Value) -> Tensor {
    let values: Vec<f64> = value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    Tensor::from_slice(&values).view(SHAPE)
}

fn process(prediction: Prediction, variance: Variance) -> Diffusion {
    let loss = if variance == Variance::LearnedRange { Loss::Vlb } else { Loss::Simple };
    let spec = DiffusionSpec { prediction, variance, loss, ..SIMPLE };
    Diffusion::new(betas(&BetaSchedule::linear(100), 100).unwrap(), spec, Device::Cpu).unwrap()
}

#[test]
fn rescaled_guidance_is_that_of_diffusers() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/guidance.json");
    let golden: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let (cond, uncond) = (image(&golden["cond"]), image(&golden["uncond"]));
    let cases = golden["guided"].as_array().unwrap();
    assert_eq!(cases.len(), 12);
    for case in cases {
        let (scale, rescale) = (case["scale"].as_f64().unwrap(), case["rescale"].as_f64().unwrap());
        let guided = linear(100).guide(&cond, &uncond, scale, rescale).unwrap();
        let off = distance(&guided, &image(&case["guided"]));
        assert!(off < 1e-12, "scale {scale}, rescale {rescale}: off by {off}");
    }
}

#[test]
fn guided_predictions_follow_the_formula_number_by_number() {
    let (strong, weak) = (noise(1, 2, &[1, 3, 3]), noise(2, 2, &[1, 3, 3]) * 0.5);
    let numbers = |x: &Tensor| Vec::<f64>::try_from(x.contiguous().view(-1)).unwrap();
    let spread = |x: &[f64]| {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64).sqrt()
    };
    let (scale, phi) = (2.5, 0.4);
    let found = numbers(&linear(100).guide(&strong, &weak, scale, phi).unwrap());
    let (strong, weak) = (numbers(&strong), numbers(&weak));
    for image in [0..9, 9..18] {
        let guided: Vec<f64> = image.clone().map(|i| weak[i] + scale * (strong[i] - weak[i])).collect();
        let ratio = spread(&strong[image.clone()]) / spread(&guided);
        for (guided, found) in guided.iter().zip(&found[image]) {
            let expected = phi * guided * ratio + (1.0 - phi) * guided;
            assert!((found - expected).abs() < 1e-12, "{found} where {expected} was due");
        }
    }
}

#[test]
fn limits_of_guidance() {
    let process = linear(100);
    let (strong, weak) = (noise(1, 2, &[1, 4, 4]), noise(2, 2, &[1, 4, 4]));
    let guide = |weak: &Tensor, scale, rescale| process.guide(&strong, weak, scale, rescale).unwrap();
    assert!(distance(&guide(&weak, 1.0, 0.7), &strong) < 1e-12, "scale 1 is no guidance");
    assert_eq!(guide(&weak, 0.0, 0.0), weak, "scale 0 is the weaker prediction");
    assert!(distance(&guide(&strong, 4.0, 0.7), &strong) < 1e-12, "a guide equal to the model changes nothing");
    let spread = |x: &Tensor| x.std_dim([1i64, 2, 3].as_slice(), false, false);
    assert!(distance(&spread(&guide(&weak, 4.0, 1.0)), &spread(&strong)) < 1e-12, "phi 1 restores the deviation");
    // Nothing to divide by: a constant guided prediction stays finite.
    let constant = guide(&(&strong - 1.0), 0.0, 0.5).isfinite().all();
    let flat = process.guide(&weak.zeros_like(), &weak.zeros_like(), 2.0, 1.0).unwrap();
    assert!(bool::try_from(constant).unwrap() && flat == weak.zeros_like());
    for rescale in [-0.1, 1.1, f64::NAN] {
        let refused = process.guide(&strong, &weak, 2.0, rescale);
        assert!(matches!(refused, Err(DiffusionError::OutOfRange { .. })), "{rescale}");
    }
    let refused = process.guide(&strong, &weak.narrow(2, 0, 3), 2.0, 0.0);
    assert!(matches!(refused, Err(DiffusionError::ModelShape { .. })));
}

#[test]
fn a_learned_variance_stays_that_of_the_stronger_model() {
    let process = process(Prediction::Eps, Variance::LearnedRange);
    let (strong, weak) = (noise(1, 2, &[2, 4, 4]), noise(2, 2, &[2, 4, 4]));
    let guided = process.guide(&strong, &weak, 3.0, 0.5).unwrap();
    assert_eq!(guided.narrow(1, 1, 1), strong.narrow(1, 1, 1));
    // A weaker model may have no variance channels at all.
    assert_eq!(process.guide(&strong, &weak.narrow(1, 0, 1), 3.0, 0.5).unwrap(), guided);
}

#[test]
fn any_prediction_is_read_as_any_other() {
    let kinds = [Prediction::Eps, Prediction::XStart, Prediction::V];
    let t = Tensor::from_slice(&[3i64, 90]);
    let (x_start, eps) = (noise(1, 2, &[1, 4, 4]), noise(2, 2, &[1, 4, 4]));
    for own in kinds {
        for variance in [Variance::FixedSmall, Variance::LearnedRange] {
            let process = process(own, variance);
            let x_t = process.q_sample(&x_start, &t, &eps);
            let mut output = process.target(own, &x_start, &eps, &t);
            if variance == Variance::LearnedRange {
                output = Tensor::cat(&[&output, &eps], 1);
            }
            for kind in kinds {
                let read = process.prediction_as(kind, &output, &x_t, &t).unwrap();
                let expected = process.target(kind, &x_start, &eps, &t);
                assert!(distance(&read, &expected) < 1e-9, "{own:?} as {kind:?}");
                assert_eq!(read.kind(), Kind::Double);
            }
        }
    }
}
