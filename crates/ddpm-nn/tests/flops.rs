//! Floating-point operations of networks: as the layers' sizes give them, and as published.

mod common;

use common::ho_cifar10;
use ddpm_nn::{
    Architecture, ClassifierSpec, Heads, ImageShape, Layout, MidAttention, Network, SmallUNetSpec, UNetSpec, Weights,
};
use proptest::prelude::*;
use tch::{Device, Kind};

fn counted(architecture: Architecture, precision: Kind) -> f64 {
    let network = Network::new(architecture).unwrap().computing_in(precision);
    let weights = Weights::initialise(network.layout(), 0, Device::Cpu).unwrap();
    network.flops(&weights).unwrap()
}

/// The same from the table of parameters: each weight takes part in a multiply-add at each position of its layer's result,
/// and attention multiplies all pairs of positions twice. For square images that are resampled by convolutions.
fn by_parameters(spec: &UNetSpec, layout: &Layout) -> f64 {
    let levels = spec.channels.len() as u32;
    let pixels = |level: u32| (spec.image.width as f64 / f64::from(1 << level)).powi(2);
    let mut sum = 0.0;
    for entry in layout.entries().iter().filter(|entry| entry.name.ends_with(".weight") && entry.shape.len() > 1) {
        let parts: Vec<&str> = entry.name.split('.').collect();
        let number = || parts[1].parse::<u32>().unwrap();
        let level = match parts[0] {
            "conv_in" | "conv_out" => 0,
            "mid_block" => levels - 1,
            "down_blocks" => number() + u32::from(parts[2] == "downsamplers"),
            "up_blocks" => levels - 1 - number() - u32::from(parts[2] == "upsamplers"),
            _ => 0,
        };
        let once = parts.contains(&"time_emb_proj") || parts[0] == "time_embedding";
        let positions = if once { 1.0 } else { pixels(level) };
        sum += if parts[0] == "class_embedding" { 0.0 } else { 2.0 * positions * entry.len() as f64 };
        if parts.contains(&"to_q") {
            sum += 4.0 * pixels(level).powi(2) * entry.shape[0] as f64;
        }
    }
    sum
}

/// Fang et al. (2023, "Structural Pruning for Diffusion Models", table 1) give 6.1 billion multiply-adds, without those of
/// attention's two products: five layers at 16x16 positions, and one at 4x4.
#[test]
fn the_network_of_ho_et_al_takes_as_many_as_published() {
    let flops = counted(Architecture::UNet(ho_cifar10()), Kind::Float);
    let attention = 4.0 * 256.0 * (5.0 * 256f64.powi(2) + 16f64.powi(2));
    assert!((6.05..6.15).contains(&((flops - attention) / 2e9)), "{flops}");
}

#[test]
fn a_classifier_and_the_small_network_are_counted_too() {
    let encoder = UNetSpec { image: ImageShape::square(1, 16), channels: vec![32, 64, 64, 64], ..ho_cifar10() };
    let classifier = ClassifierSpec { encoder, classes: 10 };
    let small =
        SmallUNetSpec { image: ImageShape::square(1, 32), out_channels: 1, channels: vec![8, 16], time_width: 32 };
    for architecture in [Architecture::Classifier(classifier), Architecture::Small(small)] {
        let whole = counted(architecture.clone(), Kind::Float);
        assert!(whole > 1e5);
        assert_eq!(whole, counted(architecture, Kind::BFloat16), "the precision does not matter");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn the_sizes_of_layers_give_the_same(
        widths in prop::collection::vec(1i64..4, 1..4),
        attention in any::<[bool; 3]>(),
        layers in 1i64..3,
        time_scale_shift: bool,
        classes in prop::option::of(2i64..5),
        size in 1i64..3,
        low: bool,
    ) {
        let levels = widths.len();
        let spec = UNetSpec {
            image: ImageShape::square(1, (8 * size) as _),
            channels: widths.iter().map(|width| 8 * width).collect(),
            layers_per_block: layers,
            attention: attention[..levels].to_vec(),
            heads: Heads::Width(8),
            norm_groups: 8,
            mid_attention: MidAttention::Normed { groups: 8 },
            time_scale_shift,
            out_channels: 1,
            downsample_padding: 1,
            classes,
            ..ho_cifar10()
        };
        let network = Network::new(Architecture::UNet(spec.clone())).unwrap();
        let expected = by_parameters(&spec, network.layout());
        let precision = if low { Kind::BFloat16 } else { Kind::Float };
        prop_assert_eq!(counted(Architecture::UNet(spec), precision), expected);
    }
}
