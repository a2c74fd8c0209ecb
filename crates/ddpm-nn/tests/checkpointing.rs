//! Activation checkpointing changes what is kept, and no number.

use std::sync::{Arc, Mutex};

use ddpm_nn::{
    Architecture, ClassifierSpec, DropoutKeys, Gradients, Heads, ImageShape, Inputs, MidAttention, Network, UNetSpec,
    Weights,
};
use tch::{Device, Kind, Tensor};

const LEVELS: usize = 3;

/// Three levels with attention, one of several heads, at the last two.
fn unet() -> UNetSpec {
    UNetSpec {
        image: ImageShape::square(3, 16),
        out_channels: 3,
        channels: vec![8, 16, 24],
        layers_per_block: 2,
        attention: vec![false, true, true],
        residual_resampling: false,
        heads: Heads::Width(8),
        norm_groups: 4,
        norm_eps: 1e-5,
        mid_attention: MidAttention::Normed { groups: 4 },
        dropout: 0.0,
        time_scale_shift: false,
        downsample_padding: 1,
        time_channels: None,
        time_scale: 1.0,
        flip_sin_to_cos: true,
        freq_shift: 0,
        classes: None,
    }
}

/// The output, the gradient of the weights, that of the images, and the parameters whose hooks fired, sorted.
fn outcome(architecture: &Architecture, precision: Kind, checkpointed: &[bool]) -> ([Tensor; 3], Vec<usize>) {
    let network = Network::new(architecture.clone()).unwrap().computing_in(precision).checkpointing(checkpointed);
    tch::manual_seed(7);
    // Not as training starts: there the last convolutions are zero, and let no gradient through.
    let flat = Tensor::randn([network.layout().len()], (Kind::Float, Device::Cpu)) * 0.1;
    let mut weights = Weights::over(network.layout(), flat).unwrap();
    let gradients = Gradients::attach(network.layout(), &mut weights).unwrap();
    let fired = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&fired);
    let groups: Vec<usize> = (0..network.layout().entries().len()).collect();
    let _grouped = gradients.sinks().grouped(&groups, move |index| log.lock().unwrap().push(index)).unwrap();
    let [channels, size, _] = network.image().sizes();
    let x = Tensor::randn([2, channels, size, size], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let t = Tensor::from_slice(&[3i64, 70]);
    let labels = network.classes().map(|_| Tensor::from_slice(&[1i64, 2]));
    let dropout = DropoutKeys::new(&[11, 5], network.dropout_layers()).unwrap();
    let inputs = Inputs { x: &x, t: &t, labels: labels.as_ref(), dropout: Some(&dropout) };
    let y = network.forward(&weights, &inputs).unwrap();
    (&y - 1.0).square().mean(Kind::Float).backward();
    let mut fired = std::mem::take(&mut *fired.lock().unwrap());
    fired.sort_unstable();
    ([y.detach(), gradients.flat().shallow_clone(), x.grad()], fired)
}

fn check(name: &str, architecture: &Architecture, precision: Kind, checkpointed: &[bool]) {
    let (plain, fired) = outcome(architecture, precision, &[]);
    assert!(fired.iter().copied().eq(0..fired.len()), "{name}: each parameter's hook fires once");
    let (again, fired_again) = outcome(architecture, precision, checkpointed);
    assert_eq!(fired_again, fired, "{name}: hooks with {checkpointed:?} checkpointed");
    for ((what, plain), again) in ["output", "gradient", "gradient of the images"].iter().zip(plain).zip(again) {
        assert!(plain.abs().max().double_value(&[]) > 0.0, "{name}: the {what} is zero");
        assert_eq!(plain, again, "{name}: the {what} with {checkpointed:?} checkpointed");
    }
}

#[test]
fn gradients_are_equal_bit_for_bit() {
    let cases = [
        ("plain", unet()),
        ("dropout", UNetSpec { dropout: 0.3, ..unet() }),
        ("classes, scale and shift", UNetSpec { classes: Some(3), time_scale_shift: true, ..unet() }),
    ];
    for (name, config) in cases {
        for precision in [Kind::Float, Kind::BFloat16] {
            let architecture = Architecture::UNet(config.clone());
            check(name, &architecture, precision, &[true; LEVELS]);
        }
    }
    for checkpointed in [[true, false, false], [false, true, false], [false, false, true]] {
        check("plain", &Architecture::UNet(unet()), Kind::Float, &checkpointed);
    }
    let resampling = UNetSpec { residual_resampling: true, ..unet() };
    check("residual resampling", &Architecture::UNet(resampling), Kind::Float, &[true; LEVELS]);
    let classifier = Architecture::Classifier(ClassifierSpec { encoder: unet(), classes: 4 });
    check("classifier", &classifier, Kind::Float, &[true; LEVELS]);
}

/// As classifier guidance needs it: the gradient of the images alone.
#[test]
fn frozen_weights_let_the_gradient_of_the_images_through() {
    let gradient = |checkpointed: &[bool]| {
        let network = Network::new(Architecture::UNet(unet())).unwrap().checkpointing(checkpointed);
        tch::manual_seed(7);
        let weights =
            Weights::over(network.layout(), Tensor::randn([network.layout().len()], (Kind::Float, Device::Cpu)) * 0.1);
        let x = Tensor::randn([1, 3, 16, 16], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let inputs = Inputs { x: &x, t: &Tensor::from_slice(&[3i64]), labels: None, dropout: None };
        network.forward(&weights.unwrap(), &inputs).unwrap().square().sum(Kind::Float).backward();
        x.grad()
    };
    assert_eq!(gradient(&[]), gradient(&[true; LEVELS]));
}
