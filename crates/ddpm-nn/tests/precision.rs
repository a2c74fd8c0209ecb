//! Networks in bf16 beside the same networks in f32.

use std::path::Path;

use ddpm_nn::{Architecture, Gradients, ImageShape, Inputs, Network, SavedUNet, SmallUNetSpec, Weights};
use tch::{Device, Kind, Tensor};

/// The prediction and the gradient of all weights.
fn outcome(architecture: &Architecture, precision: Kind, weights: impl Fn(&Network) -> Weights) -> [Tensor; 2] {
    let network = Network::new(architecture.clone()).unwrap().computing_in(precision);
    let mut weights = weights(&network);
    let gradients = Gradients::attach(network.layout(), &mut weights).unwrap();
    let [channels, size, _] = network.image().sizes();
    tch::manual_seed(0);
    let x = Tensor::randn([2, channels, size, size], (Kind::Float, Device::Cpu));
    let t = Tensor::from_slice(&[3i64, 70]);
    let labels = network.classes().map(|_| Tensor::from_slice(&[1i64, 2]));
    let y = network.forward(&weights, &Inputs { x: &x, t: &t, labels: labels.as_ref(), dropout: None }).unwrap();
    (&y - 1.0).square().mean(Kind::Float).backward();
    assert_eq!((y.kind(), gradients.flat().kind()), (Kind::Float, Kind::Float));
    [y.detach(), gradients.flat().shallow_clone()]
}

/// bf16 carries 8 bits: a few percent are what rounding at every layer adds up to.
fn check(name: &str, architecture: &Architecture, weights: impl Fn(&Network) -> Weights) {
    let full = outcome(architecture, Kind::Float, &weights);
    let half = outcome(architecture, Kind::BFloat16, &weights);
    for ((what, full), half) in ["prediction", "gradient"].iter().zip(full).zip(half) {
        let error = ((half - &full).norm() / full.norm()).double_value(&[]);
        assert!(error > 1e-5, "{name}: the {what} in bf16 is the one in f32");
        assert!(error < 0.1, "{name}: the {what} in bf16 is off by {error} of its norm");
    }
}

#[test]
fn the_unet_computes_in_bf16() {
    for pipeline in ["digits", "improved"] {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(format!("pipeline-{pipeline}"));
        let saved = SavedUNet::open(&folder).unwrap();
        let architecture = Architecture::UNet(saved.config().clone());
        check(pipeline, &architecture, |network| saved.load(network.layout(), Device::Cpu).unwrap());
    }
}

#[test]
fn the_small_unet_computes_in_bf16() {
    let architecture = Architecture::Small(SmallUNetSpec {
        image: ImageShape::square(1, 16),
        out_channels: 1,
        channels: vec![4, 8],
        time_width: 16,
    });
    check("small", &architecture, |network| Weights::initialise(network.layout(), 3, Device::Cpu).unwrap());
}
