//! The options of the U-Net, by diffusers' meaning.

use crate::NnError;

/// The attention between the two residual blocks at the lowest resolution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MidAttention {
    /// There is none.
    Absent,
    /// Attention without a norm before it.
    Unnormed,
    /// A norm of so many groups, then attention.
    Normed {
        /// Groups of the norm.
        groups: i64,
    },
}

/// Which member of the UNet2DModel family to build.
#[derive(Clone, Debug, PartialEq)]
pub struct UNetConfig {
    /// Side of the (square) images.
    pub image_size: i64,
    /// Channels of the images.
    pub in_channels: i64,
    /// Channels of the prediction: as many, or twice as many with a learned variance.
    pub out_channels: i64,
    /// Width of each level, highest resolution first.
    pub channels: Vec<i64>,
    /// Residual blocks per level on the way down (one more on the way up).
    pub layers_per_block: i64,
    /// Whether each level attends over positions.
    pub attention: Vec<bool>,
    /// Whether residual blocks halve and double the resolution between levels, rather than a convolution each.
    pub residual_resampling: bool,
    /// Channels per attention head; `None` is a single head over all channels.
    pub head_dim: Option<i64>,
    /// Groups of each group norm.
    pub norm_groups: i64,
    /// Added to the variance in each group norm.
    pub norm_eps: f64,
    /// The bottom's attention.
    pub mid_attention: MidAttention,
    /// Probability with which a residual block drops an activation.
    pub dropout: f64,
    /// Whether time scales and shifts the second norm (Nichol & Dhariwal 2021) or is added before it (Ho et al. 2020).
    pub time_scale_shift: bool,
    /// Padding of the strided convolutions: 1 all around, or 0 for one row and column at the far side only.
    pub downsample_padding: i64,
    /// Cosines before sines in the time embedding.
    pub flip_sin_to_cos: bool,
    /// Subtracted from half the width in the sinusoid's exponent.
    pub freq_shift: i64,
    /// Rows of the class table, if class-conditional.
    pub classes: Option<i64>,
}

impl UNetConfig {
    /// Refuses what cannot be built.
    pub(crate) fn check(&self) -> Result<(), NnError> {
        let fail = |message: String| Err(NnError::Architecture(message));
        let levels = self.channels.len();
        if levels == 0 || self.attention.len() != levels {
            return fail(format!(
                "the U-Net has {levels} levels but {} attention flags; give one flag per entry of channels",
                self.attention.len()
            ));
        }
        if self.in_channels < 1 || self.out_channels < 1 || self.layers_per_block < 1 || self.norm_groups < 1 {
            return fail("the U-Net's channel counts, layers_per_block and norm_groups must be at least 1".into());
        }
        for &c in &self.channels {
            if c < 1 || c % self.norm_groups != 0 {
                return fail(format!(
                    "{c} channels do not divide into {} groups; choose norm_groups that divides every entry of channels",
                    self.norm_groups
                ));
            }
        }
        if self.channels[0] % 2 != 0 {
            return fail(format!(
                "the first level's {} channels are odd; the time embedding needs an even number",
                self.channels[0]
            ));
        }
        let at_bottom = self.channels.last().copied().filter(|_| self.mid_attention != MidAttention::Absent);
        if let (Some(c), MidAttention::Normed { groups }) = (at_bottom, self.mid_attention)
            && (groups < 1 || c % groups != 0)
        {
            return fail(format!("{c} channels do not divide into the {groups} groups of the bottom's attention"));
        }
        if let Some(head) = self.head_dim {
            let attending = self.channels.iter().zip(&self.attention).filter(|(_, on)| **on).map(|(c, _)| *c);
            for c in attending.chain(at_bottom) {
                if head < 1 || c % head != 0 {
                    return fail(format!(
                        "{c} channels do not divide into heads of {head}; choose head_dim that divides them"
                    ));
                }
            }
        }
        let halvings = 1 << (levels - 1);
        if self.image_size < halvings || self.image_size % halvings != 0 {
            return fail(format!(
                "images of {} pixels cannot be halved {} times; choose an image_size divisible by {halvings} or fewer levels",
                self.image_size,
                levels - 1
            ));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return fail(format!("dropout {} is not a probability below 1", self.dropout));
        }
        Ok(())
    }
}
