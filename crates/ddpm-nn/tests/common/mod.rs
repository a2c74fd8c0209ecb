//! Networks that several tests use.

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
