//! U-Nets of OpenAI's code, against what that code computes with them (tests/golden/make_openai.py).

use std::path::{Path, PathBuf};

use ddpm_nn::{AttentionOrder, Heads, Inputs, NnError, OpenAiUNet, UNetSpec};
use safetensors::SafeTensors;
use tch::{Device, Kind, Tensor};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

fn tensor(file: &SafeTensors, name: &str) -> Option<Tensor> {
    let tensor = file.tensor(name).ok()?;
    let shape: Vec<i64> = tensor.shape().iter().map(|n| *n as i64).collect();
    let kind = if tensor.dtype() == safetensors::Dtype::I64 { Kind::Int64 } else { Kind::Float };
    Some(Tensor::from_data_size(tensor.data(), &shape, kind))
}

/// How far the network in openai-`name`.pt, read in this way, is from the output of OpenAI's code.
fn distance(name: &str, heads: Heads, order: AttentionOrder) -> f64 {
    let saved = OpenAiUNet::open(&golden(&format!("openai-{name}.pt"))).unwrap();
    let (network, weights) = saved.build(&saved.config(8, heads, 1.0), order, Device::Cpu).unwrap();
    let bytes = std::fs::read(golden(&format!("openai-{name}.safetensors"))).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (x, t, labels) = (tensor(&file, "x").unwrap(), tensor(&file, "t").unwrap(), tensor(&file, "labels"));
    assert_eq!(network.classes().is_some(), labels.is_some(), "{name}");
    let inputs = Inputs { x: &x, t: &t, labels: labels.as_ref(), dropout: None };
    let y = tch::no_grad(|| network.forward(&weights, &inputs)).unwrap();
    (y - tensor(&file, "y").unwrap()).abs().max().double_value(&[])
}

#[test]
fn networks_compute_what_openais_code_computes() {
    use AttentionOrder::{HeadsFirst, HeadsLast};
    for (name, heads, order) in [
        ("improved-hybrid", Heads::Number(2), HeadsFirst),
        ("improved-classes", Heads::Number(1), HeadsFirst),
        ("guided-updown", Heads::Width(16), HeadsFirst),
        ("guided-new-order", Heads::Number(4), HeadsLast),
        ("guided-narrow", Heads::Number(1), HeadsFirst),
    ] {
        let distance = distance(name, heads, order);
        assert!(distance <= 1e-4, "{name} is off by {distance:e}");
    }
    // What the shapes do not reveal matters.
    for (name, heads, order) in [
        ("improved-hybrid", Heads::Number(4), HeadsFirst),
        ("guided-updown", Heads::Number(2), HeadsFirst),
        ("guided-new-order", Heads::Number(4), HeadsFirst),
    ] {
        let distance = distance(name, heads, order);
        assert!(distance > 1e-3, "{name} is off by {distance:e} only");
    }
}

#[test]
fn shapes_tell_the_architecture() {
    let config =
        |name: &str| OpenAiUNet::open(&golden(&format!("openai-{name}.pt"))).unwrap().config(16, Heads::One, 1.0);
    let UNetSpec { channels, layers_per_block, attention, classes, .. } = config("improved-classes");
    assert_eq!((channels, layers_per_block, attention), (vec![32, 32, 64], 1, vec![false, true, true]));
    assert_eq!(classes, Some(5));
    let shape = |name: &str| {
        let spec = config(name);
        (spec.attention, spec.out_channels, spec.residual_resampling, spec.time_scale_shift, spec.classes)
    };
    assert_eq!(shape("improved-hybrid"), (vec![false, true], 6, false, true, None));
    assert_eq!(shape("guided-updown"), (vec![false, true], 6, true, true, Some(4)));
    let narrow = config("guided-narrow");
    assert_eq!((narrow.channels, narrow.time_channels, narrow.image.channels), (vec![32], Some(64), 1));
    assert_eq!(shape("guided-new-order"), (vec![true, true], 3, false, true, None));
}

/// Timesteps that were rescaled: with T = 250, OpenAI's code gives the network 4 t.
#[test]
fn rescaled_timesteps_are_those_of_1000() {
    let saved = OpenAiUNet::open(&golden("openai-improved-hybrid.pt")).unwrap();
    let x = Tensor::linspace(-1, 1, 2 * 3 * 16 * 16, (Kind::Float, Device::Cpu)).view([2, 3, 16, 16]);
    let predict = |time_scale, t: [i64; 2]| {
        let config = saved.config(16, Heads::Number(2), time_scale);
        let (network, weights) = saved.build(&config, AttentionOrder::HeadsFirst, Device::Cpu).unwrap();
        let t = Tensor::from_slice(&t);
        tch::no_grad(|| network.forward(&weights, &Inputs { x: &x, t: &t, labels: None, dropout: None })).unwrap()
    };
    assert_eq!(predict(4.0, [7, 249]), predict(1.0, [28, 996]));
    assert_ne!(predict(1.0, [7, 249]), predict(1.0, [28, 996]));
}

#[test]
fn other_files_are_refused_by_what_is_wrong_with_them() {
    let open = |name: &str| OpenAiUNet::open(&golden(name)).unwrap_err();
    let names = open("pipeline-ho/unet/diffusion_pytorch_model.safetensors").to_string();
    assert!(names.contains("the names that diffusers uses"), "{names}");
    let other = open("adamw.safetensors").to_string();
    assert!(other.contains("no tensor input_blocks.0.0.weight"), "{other}");
    assert!(matches!(open("openai.json"), NnError::Read { .. }));

    let saved = OpenAiUNet::open(&golden("openai-guided-updown.pt")).unwrap();
    let built =
        |config: UNetSpec| saved.build(&config, AttentionOrder::HeadsFirst, Device::Cpu).unwrap_err().to_string();
    let config = saved.config(16, Heads::Number(3), 1.0);
    assert!(built(config.clone()).contains("heads = 3 does not divide the 64 channels"));
    let wider = UNetSpec { channels: vec![32, 96], heads: Heads::One, ..config };
    let wider = built(wider);
    assert!(wider.contains("is [64, 32, 3, 3], where the other tensors imply [96, 32, 3, 3]"), "{wider}");
}
