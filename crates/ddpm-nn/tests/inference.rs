//! What inference prepares once gives what a pass computes by itself.

mod common;

use common::two_levels;
use ddpm_nn::{Architecture, Inputs, Network, UNetSpec, Weights};
use tch::{Device, Kind, Tensor};

/// A U-Net whose layers are of all kinds: with and without Winograd's algorithm, skips, attention, both ways to resample.
fn unet(classes: Option<i64>, time_scale_shift: bool, residual_resampling: bool) -> Architecture {
    let out_channels = 2;
    let unet =
        UNetSpec { out_channels, residual_resampling, dropout: 0.1, time_scale_shift, classes, ..two_levels(16) };
    Architecture::UNet(unet)
}

const KINDS: [(Option<i64>, bool, bool); 4] =
    [(None, false, false), (None, true, true), (Some(4), true, false), (Some(4), false, true)];

/// A network and weights none of which are 0, as the last layers of fresh ones are.
fn network(architecture: Architecture, precision: Kind) -> (Network, Weights) {
    let network = Network::new(architecture).unwrap().computing_in(precision);
    tch::manual_seed(5);
    let flat = Tensor::randn([network.layout().len()], (Kind::Float, Device::Cpu)) * 0.2;
    let weights = Weights::over(network.layout(), flat).unwrap();
    (network, weights)
}

/// The prediction for three images, each at a timestep of its own.
fn predict(network: &Network, weights: &Weights, t: &[i64]) -> Tensor {
    tch::manual_seed(6);
    let x = Tensor::randn([t.len() as i64, 1, 16, 16], (Kind::Float, Device::Cpu));
    let labels = network.classes().map(|_| Tensor::from_slice(&[3i64, 0, 3]));
    let inputs = Inputs { x: &x, t: &Tensor::from_slice(t), labels: labels.as_ref(), dropout: None };
    tch::no_grad(|| network.forward(weights, &inputs)).unwrap()
}

fn distance(found: &Tensor, expected: &Tensor) -> f64 {
    ((found - expected).norm() / expected.norm()).double_value(&[])
}

#[test]
fn prepared_weights_predict_the_same() {
    for (classes, scale_shift, resampling) in KINDS {
        let (network, weights) = network(unet(classes, scale_shift, resampling), Kind::Float);
        let expected = predict(&network, &weights, &[9, 70, 0]);
        assert!(expected.norm().double_value(&[]) > 0.1, "a prediction that distinguishes something");
        let prepared = network.prepare(&weights).unwrap();
        let first = predict(&network, &prepared, &[9, 70, 0]);
        let error = distance(&first, &expected);
        assert!(error < 1e-6, "off by {error}: {classes:?}, {scale_shift}, {resampling}");
        assert_eq!(predict(&network, &prepared, &[9, 70, 0]), first, "what is kept is what was made");
    }
}

/// Products of matrices with another number of rows may be summed in another order, so the bits may differ.
#[test]
fn tables_by_timestep_hold_what_a_pass_computes() {
    for (classes, scale_shift, resampling) in KINDS {
        let (network, weights) = network(unet(classes, scale_shift, resampling), Kind::Float);
        let known = network.at_timesteps(&network.prepare(&weights).unwrap(), &[0, 9, 33, 70, 999]).unwrap();
        for t in [[9, 70, 0], [999, 999, 999], [33, 0, 9]] {
            let error = distance(&predict(&network, &known, &t), &predict(&network, &weights, &t));
            assert!(error < 1e-5, "off by {error} at {t:?}: {classes:?}, {scale_shift}, {resampling}");
        }
    }
}

/// bf16 carries 8 bits: a few percent are what rounding at every layer adds up to, with transformed weights and without.
#[test]
fn weights_prepared_in_bf16_predict_nearly_the_same() {
    for (classes, scale_shift, resampling) in KINDS {
        let architecture = unet(classes, scale_shift, resampling);
        let (exact, weights) = network(architecture.clone(), Kind::Float);
        let exact = predict(&exact, &weights, &[9, 70, 0]);
        let (network, weights) = network(architecture, Kind::BFloat16);
        let prepared = network.prepare(&weights).unwrap();
        for (what, weights) in [("prepared", &prepared), ("by itself", &weights)] {
            let found = predict(&network, weights, &[9, 70, 0]);
            let error = distance(&found, &exact);
            assert_eq!(found.kind(), Kind::Float);
            assert!(error > 1e-5 && error < 0.1, "{what}: off by {error}: {classes:?}, {scale_shift}, {resampling}");
        }
    }
}

/// Guidance by a classifier needs the gradient of its images, and its weights are prepared too.
#[test]
fn gradients_of_images_flow_through_prepared_weights() {
    let (network, weights) = network(unet(None, true, false), Kind::Float);
    let gradient = |weights: &Weights| {
        tch::manual_seed(7);
        let x = Tensor::randn([2, 1, 16, 16], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let t = Tensor::from_slice(&[3i64, 50]);
        let y = network.forward(weights, &Inputs { x: &x, t: &t, labels: None, dropout: None }).unwrap();
        y.square().sum(Kind::Float).backward();
        x.grad()
    };
    let expected = gradient(&weights);
    let prepared = network.prepare(&weights).unwrap();
    // What a pass without gradients keeps must not disturb one with gradients.
    let _ = predict(&network, &prepared, &[1, 2, 3]);
    let error = distance(&gradient(&prepared), &expected);
    assert!(expected.norm().double_value(&[]) > 0.0 && error < 1e-6, "off by {error}");
}

/// Weights that are trained further must not be remembered.
#[test]
fn unprepared_weights_are_read_in_every_pass() {
    let (network, weights) = network(unet(None, false, false), Kind::BFloat16);
    let before = predict(&network, &weights, &[1, 2, 3]);
    let _ = weights.flat().shallow_clone().f_mul_scalar_(0.5).unwrap();
    assert_ne!(predict(&network, &weights, &[1, 2, 3]), before);
}
