//! The classifier: where it starts, what it shares with the U-Net, and its gradient with respect to the image.

use ddpm_nn::{Architecture, ClassifierSpec, Heads, ImageShape, Inputs, MidAttention, Network, UNetSpec, Weights};
use tch::{Device, Kind, Tensor};

fn encoder() -> UNetSpec {
    UNetSpec {
        image: ImageShape::square(1, 8),
        out_channels: 1,
        channels: vec![8, 16],
        layers_per_block: 1,
        attention: vec![false, true],
        residual_resampling: false,
        heads: Heads::One,
        norm_groups: 4,
        norm_eps: 1e-5,
        mid_attention: MidAttention::Normed { groups: 4 },
        dropout: 0.0,
        time_scale_shift: true,
        downsample_padding: 1,
        time_channels: None,
        time_scale: 1.0,
        flip_sin_to_cos: true,
        freq_shift: 0,
        classes: None,
    }
}

fn classifier(classes: i64) -> Network {
    Network::new(Architecture::Classifier(ClassifierSpec { encoder: encoder(), classes })).unwrap()
}

fn noise(shape: &[i64]) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product::<i64>()).map(|i| ((i * 37 + 11) as f32).sin()).collect();
    Tensor::from_slice(&values).view(shape)
}

#[test]
fn it_starts_undecided_and_shares_the_names_of_the_way_down() {
    let network = classifier(10);
    let weights = Weights::initialise(network.layout(), 0, Device::Cpu).unwrap();
    let (x, t) = (noise(&[3, 1, 8, 8]), Tensor::from_slice(&[0i64, 7, 99]));
    let logits = network.forward(&weights, &Inputs { x: &x, t: &t, labels: None, dropout: None }).unwrap();
    assert_eq!((logits.size(), logits.abs().max().double_value(&[])), (vec![3, 10], 0.0));

    let unet = Network::new(Architecture::UNet(encoder())).unwrap();
    let (head, body) = network.layout().entries().split_last_chunk::<4>().map(|(body, head)| (head, body)).unwrap();
    assert_eq!(body, &unet.layout().entries()[..body.len()]);
    let names = head.each_ref().map(|entry| entry.name.as_str());
    assert_eq!(names, ["conv_norm_out.weight", "conv_norm_out.bias", "classifier.weight", "classifier.bias"]);
}

#[test]
fn its_gradient_is_that_of_finite_differences() {
    let network = classifier(5);
    // The head away from zero, or nothing would depend on the image yet; far away, so that f32 shows the slopes.
    let flat = Weights::initialise(network.layout(), 1, Device::Cpu).unwrap().flat().shallow_clone();
    let head = network.layout().entries().iter().find(|entry| entry.name == "classifier.weight").unwrap();
    flat.narrow(0, head.offset, head.len()).copy_(&(noise(&[head.len()]) * 20.0));
    let weights = Weights::over(network.layout(), flat).unwrap();
    let t = Tensor::from_slice(&[3i64, 50]);
    let labels = Tensor::from_slice(&[4i64, 1]);
    let log_p = |x: &Tensor| {
        let logits = network.forward(&weights, &Inputs { x, t: &t, labels: None, dropout: None }).unwrap();
        logits.log_softmax(1, None).gather(1, &labels.unsqueeze(1), false).sum(Kind::Double)
    };
    let x = noise(&[2, 1, 8, 8]).set_requires_grad(true);
    let gradient = Tensor::run_backward(&[log_p(&x)], &[&x], false, false).remove(0);
    for seed in 0..4 {
        let direction = noise(&[2, 1, 8, 8]).roll(seed * 13 + 1, 2).roll(seed, 3);
        let slope = (&gradient * &direction).sum(Kind::Double).double_value(&[]);
        let h = 1e-2;
        let at = |step: f64| tch::no_grad(|| log_p(&(&x + &direction * step)).double_value(&[]));
        // Of fourth order, so that f32 does not hide the slope behind its rounding.
        let found = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h);
        assert!(slope.abs() > 1e-2, "direction {seed} shows nothing: slope {slope}");
        assert!((slope - found).abs() < 2e-3 * slope.abs().max(1.0), "slope {slope}, differences {found}");
    }
}

#[test]
fn fewer_than_two_classes_are_refused() {
    let config = ClassifierSpec { encoder: encoder(), classes: 1 };
    let error = Network::new(Architecture::Classifier(config)).unwrap_err().to_string();
    assert!(error.contains("a classifier needs classes, the two or more"), "{error}");
}
