//! Networks that several tests use.
#![allow(dead_code, reason = "each test crate uses its part")]

use ddpm_nn::{Heads, ImageShape, MidAttention, UNetSpec};

/// The U-Net for CIFAR-10 of Ho et al. (2020), appendix B.
pub fn ho_cifar10() -> UNetSpec {
    UNetSpec {
        image: ImageShape::square(3, 32),
        out_channels: 3,
        channels: vec![128, 256, 256, 256],
        layers_per_block: 2,
        attention: vec![false, true, false, false],
        residual_resampling: false,
        heads: Heads::One,
        norm_groups: 32,
        norm_eps: 1e-6,
        mid_attention: MidAttention::Normed { groups: 32 },
        dropout: 0.1,
        time_scale_shift: false,
        downsample_padding: 0,
        time_channels: None,
        time_scale: 1.0,
        flip_sin_to_cos: false,
        freq_shift: 1,
        classes: None,
    }
}

/// A U-Net of two levels, the lower of which has attention, for grey images.
pub fn two_levels(side: usize) -> UNetSpec {
    UNetSpec {
        image: ImageShape::square(1, side),
        out_channels: 1,
        channels: vec![16, 32],
        layers_per_block: 1,
        attention: vec![false, true],
        norm_groups: 8,
        mid_attention: MidAttention::Normed { groups: 8 },
        dropout: 0.0,
        time_scale_shift: true,
        downsample_padding: 1,
        ..ho_cifar10()
    }
}
