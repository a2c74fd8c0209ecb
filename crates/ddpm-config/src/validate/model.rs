//! `[model]`: an architecture that can be built, on images of the size that the data have.

use super::check::{
    gcd, in_range, largest_divisor, nearest_divisors, nearest_multiples, positive, positive_finite, require,
};
use crate::{Error, ModelKind, ModelSettings};

impl ModelSettings {
    pub(super) fn validate(&self, image_size: u32) -> Result<(), Error> {
        let levels = self.channels.len();
        in_range(
            "model.channels",
            format!("{:?}", self.channels),
            (1..=12).contains(&levels),
            "a list of 1 to 12 widths",
        )?;
        let widest = self.channels.iter().copied().max().unwrap_or(0);
        in_range("model.channels", widest, widest <= 65_536, "at most 65536")?;
        one_per_level("model.attention", &self.attention, levels)?;
        if !self.checkpoint_activations.is_empty() {
            one_per_level("model.checkpoint_activations", &self.checkpoint_activations, levels)?;
        }
        in_range("model.dropout", self.dropout, (0.0..1.0).contains(&self.dropout), "at least 0 and below 1")?;
        in_range("model.norm_eps", self.norm_eps, positive_finite(self.norm_eps), "above 0")?;
        positive("model.layers_per_block", u64::from(self.layers_per_block))?;
        positive("model.norm_groups", u64::from(self.norm_groups))?;
        in_range("model.downsample_padding", self.downsample_padding, self.downsample_padding <= 1, "0 or 1")?;
        in_range("model.freq_shift", self.freq_shift, self.freq_shift <= 1, "0 or 1")?;
        let halvings = match self.kind {
            ModelKind::Unet | ModelKind::Classifier => {
                self.validate_unet()?;
                levels - 1
            }
            ModelKind::Small => {
                self.validate_small()?;
                levels
            }
        };
        let multiple = 1 << halvings;
        require(
            image_size.is_multiple_of(multiple),
            "data.image_size",
            || {
                format!(
                    "data.image_size = {image_size} is not a multiple of {multiple}, as the {levels} levels of the net need"
                )
            },
            || {
                let sizes = nearest_multiples(image_size as usize, multiple as usize);
                format!("Use {sizes}, or fewer entries in model.channels")
            },
        )
    }

    fn validate_unet(&self) -> Result<(), Error> {
        let groups = self.norm_groups as usize;
        for &width in &self.channels {
            require(
                width > 0 && (width as usize).is_multiple_of(groups),
                "model.channels",
                || format!("{width} in model.channels does not divide into model.norm_groups = {groups}"),
                || {
                    let widths = nearest_multiples(width as usize, groups);
                    match self.channels.iter().copied().fold(0, gcd) {
                        0 | 1 => format!("Use {widths}"),
                        common => format!(
                            "Use {widths}, or model.norm_groups = {}",
                            largest_divisor(common, self.norm_groups)
                        ),
                    }
                },
            )?;
        }
        // Half of the time embedding are sines, half cosines, and the exponent divides by half the width - freq_shift.
        let first = self.channels[0];
        in_range("model.channels[0]", first, first >= 4 && first.is_multiple_of(2), "even and at least 4")?;
        let Some(head) = self.head_dim else { return Ok(()) };
        // The bottom of the U-Net attends whatever `attention` says.
        let bottom = self.channels.len() - 1;
        for (level, &width) in self.channels.iter().enumerate() {
            require(
                !(self.attention[level] || level == bottom) || (head > 0 && width.is_multiple_of(head)),
                "model.head_dim",
                || format!("model.head_dim = {head} does not divide the {width} channels that attend at level {level}"),
                || format!("Use {}, or 0 for one head", nearest_divisors(width as usize, head as usize)),
            )?;
        }
        Ok(())
    }

    /// The small net refuses options that it would ignore.
    fn validate_small(&self) -> Result<(), Error> {
        for &width in &self.channels {
            in_range(
                "model.channels",
                width,
                width >= 2 && width.is_multiple_of(2),
                "even and at least 2 in the small net",
            )?;
        }
        let unet = Self::default();
        let ignored = [
            ("model.attention", self.attention.contains(&true)),
            ("model.checkpoint_activations", self.checkpoint_activations.contains(&true)),
            ("model.head_dim", self.head_dim.is_some()),
            ("model.dropout", self.dropout > 0.0),
            ("model.time_scale_shift", self.time_scale_shift),
            ("model.classes", self.classes.is_some()),
            ("model.layers_per_block", self.layers_per_block != unet.layers_per_block),
            ("model.norm_groups", self.norm_groups != unet.norm_groups),
            ("model.downsample_padding", self.downsample_padding != unet.downsample_padding),
            ("model.freq_shift", self.freq_shift != unet.freq_shift),
            ("model.flip_sin_to_cos", self.flip_sin_to_cos != unet.flip_sin_to_cos),
            ("model.norm_eps", self.norm_eps != unet.norm_eps),
        ];
        for (key, set) in ignored {
            require(
                !set,
                key,
                || format!("{key} is set, but model.kind = \"small\" has no such part"),
                || format!("Remove {key}, or set model.kind = \"unet\""),
            )?;
        }
        Ok(())
    }
}

fn one_per_level(key: &'static str, flags: &[bool], levels: usize) -> Result<(), Error> {
    require(
        flags.len() == levels,
        key,
        || format!("{key} has {} entries for the {levels} levels of model.channels", flags.len()),
        || format!("Give {levels}, one true or false per level"),
    )
}
