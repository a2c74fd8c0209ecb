//! The U-Net of Ho et al. (2020) and Nichol & Dhariwal (2021), by the meaning of diffusers' UNet2DModel.

use serde::Serialize;

use crate::attention::{Heads, MidAttention};
use crate::check::{
    gcd, in_range, largest_divisor, nearest_divisors, nearest_multiples, one_per_level, positive_finite, require,
};
use crate::error::{Naming, SpecError};
use crate::image::ImageShape;

/// Wider layers have no room in any memory.
const WIDEST: i64 = 65_536;
/// More levels would need images larger than any that can be read.
const MOST_LEVELS: usize = 12;

/// Which member of the UNet2DModel family to build.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UNetSpec {
    /// The images, as in and out of the network; each level but the last halves both sides.
    pub image: ImageShape,
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
    /// Heads of each attention layer.
    pub heads: Heads,
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
    /// Width of the sinusoids that begin the time embedding, which is four times as wide; `None`: that of the first
    /// level.
    pub time_channels: Option<i64>,
    /// What timesteps are multiplied by before they are embedded: 1, or 1000/T where T timesteps were rescaled to 1000
    /// (`rescale_timesteps` of Nichol & Dhariwal's code).
    pub time_scale: f64,
    /// Cosines before sines in the time embedding.
    pub flip_sin_to_cos: bool,
    /// Subtracted from half the width in the sinusoid's exponent.
    pub freq_shift: i64,
    /// Rows of the class table, if class-conditional.
    pub classes: Option<i64>,
}

impl UNetSpec {
    /// Width of the sinusoids of the time embedding.
    pub fn sinusoids(&self) -> i64 {
        self.time_channels.unwrap_or(self.channels[0])
    }

    /// Width of the time (and class) embedding.
    pub fn embedding(&self) -> i64 {
        4 * self.sinusoids()
    }

    /// Checks that the network can be built.
    ///
    /// # Errors
    /// [`SpecError`] in the field at fault, with the nearest values that work.
    pub fn validate(&self, naming: Naming) -> Result<(), SpecError> {
        let path = |field: &str| naming.path(field);
        let levels = self.channels.len();
        self.image.validate(naming)?;
        widths(&self.channels, naming)?;
        one_per_level(&path("attention"), &self.attention, &path("channels"), levels)?;
        let dropout = self.dropout;
        in_range(&path("dropout"), dropout, (0.0..1.0).contains(&dropout), "at least 0 and below 1")?;
        for (field, value) in [("norm_eps", self.norm_eps), ("time_scale", self.time_scale)] {
            in_range(&path(field), value, positive_finite(value), "above 0")?;
        }
        for (field, count) in [
            ("out_channels", self.out_channels),
            ("layers_per_block", self.layers_per_block),
            ("norm_groups", self.norm_groups),
            ("classes", self.classes.unwrap_or(1)),
        ] {
            in_range(&path(field), count, count >= 1, "at least 1")?;
        }
        for (field, value) in [("downsample_padding", self.downsample_padding), ("freq_shift", self.freq_shift)] {
            in_range(&path(field), value, matches!(value, 0 | 1), "0 or 1")?;
        }
        self.validate_groups(naming)?;
        // Half of the sinusoids are sines, half cosines, and the exponent divides by half the width - freq_shift.
        let (field, width) = match self.time_channels {
            Some(width) => (path("time_channels"), width),
            None => (format!("{}[0]", path("channels")), self.channels[0]),
        };
        in_range(&field, width, (4..=WIDEST).contains(&width) && width % 2 == 0, "even and at least 4")?;
        self.validate_heads(naming)?;
        image_halves(self.image, levels, levels - 1, naming)
    }

    fn validate_groups(&self, naming: Naming) -> Result<(), SpecError> {
        let (channels, norm_groups) = (naming.path("channels"), naming.path("norm_groups"));
        let groups = self.norm_groups;
        for &width in &self.channels {
            require(
                width > 0 && width % groups == 0,
                &channels,
                || format!("{width} in {channels} does not divide into {norm_groups} = {groups}"),
                || {
                    let widths = nearest_multiples(width.max(0) as u64, groups as u64);
                    match self.channels.iter().map(|width| width.unsigned_abs()).fold(0, gcd) {
                        0 | 1 => format!("Use {widths}"),
                        common => {
                            let groups = largest_divisor(common, groups as u64);
                            format!("Use {widths}, or {norm_groups} = {groups}")
                        }
                    }
                },
            )?;
        }
        let (MidAttention::Normed { groups }, Some(&bottom)) = (self.mid_attention, self.channels.last()) else {
            return Ok(());
        };
        let path = naming.path("mid_attention.groups");
        require(
            groups >= 1 && bottom % groups == 0,
            &path,
            || format!("{path} = {groups} does not divide the {bottom} channels of the bottom"),
            || format!("Use {}", nearest_divisors(bottom as u64, groups.max(0) as u64)),
        )
    }

    fn validate_heads(&self, naming: Naming) -> Result<(), SpecError> {
        let (field, divisor) = match self.heads {
            Heads::One => return Ok(()),
            Heads::Width(width) => ("head_dim", width),
            Heads::Number(number) => ("heads", number),
        };
        let path = naming.path(field);
        let bottom = self.channels.len() - 1;
        for (level, &width) in self.channels.iter().enumerate() {
            let at_bottom = level == bottom && self.mid_attention != MidAttention::Absent;
            require(
                !(self.attention[level] || at_bottom) || (divisor > 0 && width % divisor == 0),
                &path,
                || format!("{path} = {divisor} does not divide the {width} channels that attend at level {level}"),
                || format!("Use {}", nearest_divisors(width as u64, divisor.max(0) as u64)),
            )?;
        }
        Ok(())
    }
}

/// Checks how many levels there are, and that none is too wide.
pub(crate) fn widths(channels: &[i64], naming: Naming) -> Result<(), SpecError> {
    let path = naming.path("channels");
    let wanted = format!("a list of 1 to {MOST_LEVELS} widths");
    in_range(&path, format!("{channels:?}"), (1..=MOST_LEVELS).contains(&channels.len()), wanted)?;
    let widest = channels.iter().copied().max().unwrap_or(0);
    in_range(&path, widest, widest <= WIDEST, format!("at most {WIDEST}"))
}

/// Checks that both sides of an image can be halved so many times.
pub(crate) fn image_halves(image: ImageShape, levels: usize, halvings: usize, naming: Naming) -> Result<(), SpecError> {
    let multiple = 1 << halvings;
    let channels = naming.path("channels");
    for (field, side) in [("image.height", image.height), ("image.width", image.width)] {
        let path = naming.path(field);
        require(
            side.is_multiple_of(multiple),
            &path,
            || format!("{path} = {side} is not a multiple of {multiple}, as the {levels} levels of the net need"),
            || {
                let sizes = nearest_multiples(side as u64, multiple as u64);
                format!("Use {sizes}, or fewer entries in {channels}")
            },
        )?;
    }
    Ok(())
}
