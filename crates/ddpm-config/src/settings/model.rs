//! `[model]`.

use ddpm_spec::{MidAttentionKind, ModelKind};
use serde::{Deserialize, Serialize};

use super::optional::zero_is_none;

/// `[model]`: the network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSettings {
    /// Architecture. Default `unet`.
    pub kind: ModelKind,
    /// Width of each resolution level, highest resolution first. Default `[32, 64, 128]`; `[4, 10, 20, 40]` for
    /// `small`.
    pub channels: Vec<u32>,
    /// Residual blocks per level on the way down; one more on the way up. Default 2.
    pub layers_per_block: u32,
    /// Whether each level has self-attention, one entry per level. Default: the last level but one; none for `small`.
    pub attention: Vec<bool>,
    /// Whether each level's blocks keep only their inputs for backward and are recomputed there: less memory, more
    /// time, the same numbers. One entry per level, or empty for none; the bottom belongs to the last level. Default
    /// `[]`.
    pub checkpoint_activations: Vec<bool>,
    /// Channels per attention head; absent or 0: one head over all channels.
    #[serde(deserialize_with = "zero_is_none")]
    pub head_dim: Option<u32>,
    /// Attention heads of every level, instead of `head_dim`; absent or 0: as `head_dim` says.
    #[serde(deserialize_with = "zero_is_none")]
    pub heads: Option<u32>,
    /// Attention in the middle block. Default `normed`, as at the other levels.
    pub mid_attention: MidAttentionKind,
    /// Groups of the norm before that attention; absent or 0: `norm_groups`.
    #[serde(deserialize_with = "zero_is_none")]
    pub mid_norm_groups: Option<u32>,
    /// Residual blocks halve and double the resolution between levels (Dhariwal & Nichol 2021) instead of a
    /// convolution each. Default false.
    pub residual_resampling: bool,
    /// Groups of every group normalisation. Default 32.
    pub norm_groups: u32,
    /// Dropout probability inside residual blocks. Default 0.
    pub dropout: f64,
    /// The time embedding scales and shifts the normalised activations (Nichol & Dhariwal 2021) instead of being
    /// added to them (Ho et al. 2020). Default false.
    pub time_scale_shift: bool,
    /// Padding of the strided convolutions: 1 on every side, or 0 for right and bottom only, as in Ho et al. Default 1.
    pub downsample_padding: u32,
    /// Subtracted from half the embedding's width in the sinusoids' exponent: 1 as in Ho et al., 0 in later work.
    /// Default 0.
    pub freq_shift: u32,
    /// Width of the sinusoids of the time embedding; absent or 0: that of the first level.
    #[serde(deserialize_with = "zero_is_none")]
    pub time_channels: Option<u32>,
    /// Timesteps are multiplied by this before they are embedded: 1000/T for models with OpenAI's `rescale_timesteps`.
    /// Default 1.
    pub time_scale: f64,
    /// Time embedding is [cos, sin] rather than [sin, cos]. Default true.
    pub flip_sin_to_cos: bool,
    /// Added to the variance in group normalisation. Default 1e-5.
    pub norm_eps: f64,
    /// Number of classes the network is conditioned on, or that a classifier distinguishes; absent or 0: unconditional.
    #[serde(deserialize_with = "zero_is_none")]
    pub classes: Option<u32>,
}

impl Default for ModelSettings {
    fn default() -> Self {
        let channels = default_channels(ModelKind::Unet).to_vec();
        Self {
            kind: ModelKind::Unet,
            attention: default_attention(ModelKind::Unet, channels.len()),
            channels,
            layers_per_block: 2,
            checkpoint_activations: Vec::new(),
            head_dim: None,
            heads: None,
            mid_attention: MidAttentionKind::Normed,
            mid_norm_groups: None,
            residual_resampling: false,
            norm_groups: 32,
            dropout: 0.0,
            time_scale_shift: false,
            downsample_padding: 1,
            freq_shift: 0,
            time_channels: None,
            time_scale: 1.0,
            flip_sin_to_cos: true,
            norm_eps: 1e-5,
            classes: None,
        }
    }
}

/// The widths if `model.channels` is not set.
pub(crate) fn default_channels(kind: ModelKind) -> &'static [u32] {
    match kind {
        ModelKind::Unet | ModelKind::Classifier => &[32, 64, 128],
        ModelKind::Small => &[4, 10, 20, 40],
    }
}

/// The attention if `model.attention` is not set: at the last level but one of a U-Net.
pub(crate) fn default_attention(kind: ModelKind, levels: usize) -> Vec<bool> {
    (0..levels).map(|level| kind != ModelKind::Small && level + 2 == levels).collect()
}
