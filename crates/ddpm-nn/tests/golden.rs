//! Against numbers from diffusers and PyTorch (tests/golden).

mod common;

use std::path::{Path, PathBuf};

use common::ho_cifar10;
use ddpm_nn::{
    AdamW, Architecture, Averaging, Ema, Heads, ImageShape, Inputs, MidAttention, Network, SavedUNet, SmallUNetSpec,
    UNetSpec, Weights, clip,
};
use safetensors::SafeTensors;
use tch::{Device, Kind, Tensor};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

fn load(name: &str) -> impl Fn(&str) -> Tensor + use<> {
    let bytes = std::fs::read(golden(name)).unwrap();
    move |key| {
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = file.tensor(key).unwrap();
        let shape: Vec<i64> = tensor.shape().iter().map(|n| *n as i64).collect();
        let kind = match tensor.dtype() {
            safetensors::Dtype::I64 => Kind::Int64,
            safetensors::Dtype::F32 => Kind::Float,
            other => panic!("{key} is {other:?}"),
        };
        Tensor::from_data_size(tensor.data(), &shape, kind)
    }
}

fn check_close(what: &str, ours: &Tensor, theirs: &Tensor, tolerance: f64) {
    let distance = (ours - theirs).abs().max().double_value(&[]);
    assert!(distance <= tolerance, "{what} differs by {distance:e}, more than {tolerance:e}");
}

/// The network in a folder computes what diffusers computed with it.
fn check_network(folder: &str, expected: &str) {
    let saved = SavedUNet::open(&golden(folder)).unwrap();
    let network = Network::new(Architecture::UNet(saved.config().clone())).unwrap();
    let weights = saved.load(network.layout(), Device::Cpu).unwrap();
    let tensors = load(&format!("{expected}.safetensors"));
    let (x, t) = (tensors("x"), tensors("t"));
    let labels = network.classes().map(|_| tensors("labels"));
    let inputs = Inputs { x: &x, t: &t, labels: labels.as_ref(), dropout: None };
    let y = tch::no_grad(|| network.forward(&weights, &inputs)).unwrap();
    check_close(folder, &y, &tensors("y"), 1e-4);
}

fn check_pipeline(name: &str) {
    check_network(&format!("pipeline-{name}"), &format!("unet-{name}"));
}

#[test]
fn digits_pipeline() {
    check_pipeline("digits");
}

#[test]
fn ho_pipeline() {
    check_pipeline("ho");
}

#[test]
fn improved_pipeline() {
    check_pipeline("improved");
}

/// All files at the root, a `.bin`, attention named query, key, value, proj_attn.
#[test]
fn a_network_of_version_0_4() {
    check_network("old-cifar10", "old-cifar10");
}

/// f16 under a variant's name, attention out of convolutions, next to no keys.
#[test]
fn a_network_in_half_precision() {
    check_network("old-celebahq", "old-celebahq");
}

/// bf16 in shards; a norm at the bottom that no key names.
#[test]
fn a_network_of_version_0_16_with_scale_and_shift() {
    check_network("old-scale-shift", "old-scale-shift");
}

/// Residual blocks between the levels, no attention at the bottom, a `.bin` as before torch 1.6.
#[test]
fn a_network_with_residual_resampling() {
    check_network("old-resampling", "old-resampling");
}

#[test]
fn published_sizes() {
    let ho = Network::new(Architecture::UNet(ho_cifar10())).unwrap();
    assert_eq!((ho.layout().len(), ho.layout().entries().len()), (35_746_307, 328));
    let improved = UNetSpec {
        out_channels: 6,
        layers_per_block: 3,
        channels: vec![128, 256, 256, 256],
        attention: vec![false, true, true, false],
        heads: Heads::Width(64),
        norm_eps: 1e-5,
        time_scale_shift: true,
        downsample_padding: 1,
        ..ho_cifar10()
    };
    let improved = Network::new(Architecture::UNet(improved)).unwrap();
    assert_eq!(improved.layout().entries().len(), 506);
    assert_eq!((improved.layout().len() as f64 / 1e3).round(), 52_546.0);
}

#[test]
fn every_parameter_of_the_small_unet_is_used() {
    let config = SmallUNetSpec {
        image: ImageShape::square(1, 32),
        out_channels: 1,
        channels: vec![4, 10, 20, 40],
        time_width: 60,
    };
    let network = Network::new(Architecture::Small(config)).unwrap();
    let mut weights = Weights::initialise(network.layout(), 1, Device::Cpu).unwrap();
    let gradients = ddpm_nn::Gradients::attach(network.layout(), &mut weights).unwrap();
    tch::manual_seed(0);
    let x = Tensor::randn([2, 1, 32, 32], (Kind::Float, Device::Cpu));
    let t = Tensor::from_slice(&[3i64, 900]);
    let y = network.forward(&weights, &Inputs { x: &x, t: &t, labels: None, dropout: None }).unwrap();
    assert_eq!(y.size(), [2, 1, 32, 32]);
    (&y * &x).sum(Kind::Float).backward();
    for entry in network.layout().entries() {
        let largest = gradients.flat().narrow(0, entry.offset, entry.len()).abs().max().double_value(&[]);
        assert!(largest > 0.0, "{} has no gradient", entry.name);
    }
}

#[test]
fn clipping_adamw_and_ema_follow_pytorch() {
    let tensors = load("adamw.safetensors");
    let weights = tensors("param0");
    let mut optimizer = AdamW::new(&weights, [0.9, 0.99], 0.1, 1e-8).unwrap();
    let mut ema = Ema::new(&weights, Averaging::Exponential { rate: 0.9, warmup: false }).unwrap();
    for step in 0..6 {
        let mut gradient = tensors(&format!("grad{step}"));
        let norm = gradient.norm().double_value(&[]);
        clip(&mut gradient, norm, 1.0).unwrap();
        let expected = tensors(&format!("norm{step}")).double_value(&[0]);
        assert!((norm - expected).abs() <= 1e-5 * expected, "norm {norm} at step {step}, not {expected}");
        optimizer.step(&weights, &gradient, 0.01).unwrap();
        ema.update(&weights).unwrap();
        check_close("weights", &weights, &tensors(&format!("param{}", step + 1)), 1e-6);
        check_close("ema", ema.flat(), &tensors(&format!("ema{}", step + 1)), 1e-6);
    }
    check_close("exp_avg", optimizer.exp_avg(), &tensors("exp_avg"), 1e-7);
    check_close("exp_avg_sq", optimizer.exp_avg_sq(), &tensors("exp_avg_sq"), 1e-7);
}

#[test]
fn weights_of_another_network_are_refused_by_tensor_name() {
    let open = |name: &str| SavedUNet::open(&golden(name)).unwrap();
    let network = Network::new(Architecture::UNet(open("pipeline-digits").config().clone())).unwrap();
    let error = open("pipeline-ho").load(network.layout(), Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("conv_in.weight is F32 [16, 3, 3, 3]"), "{error}");
}

#[test]
fn architectures_that_cannot_be_built_are_refused() {
    let cases: [(UNetSpec, &str); 6] = [
        (UNetSpec { attention: vec![false], ..ho_cifar10() }, "attention has 1 entries for the 4 levels of channels"),
        (UNetSpec { norm_groups: 48, ..ho_cifar10() }, "128 in channels does not divide into norm_groups = 48"),
        (
            UNetSpec { mid_attention: MidAttention::Normed { groups: 48 }, ..ho_cifar10() },
            "mid_attention.groups = 48 does not divide the 256 channels",
        ),
        (UNetSpec { heads: Heads::Width(48), ..ho_cifar10() }, "head_dim = 48 does not divide the 256 channels"),
        (UNetSpec { image: ImageShape::square(3, 28), ..ho_cifar10() }, "image.height = 28 is not a multiple of 8"),
        (UNetSpec { dropout: 1.0, ..ho_cifar10() }, "dropout = 1 is out of range"),
    ];
    for (config, expected) in cases {
        let error = Network::new(Architecture::UNet(config)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error} does not say {expected:?}");
    }
}
