//! `[model]`: options that do not belong to an architecture, and options that the chosen architecture would ignore.

use ddpm_spec::check::{one_per_level, require};
use ddpm_spec::{ModelKind, SpecError};

use crate::ModelSettings;

impl ModelSettings {
    pub(super) fn validate(&self) -> Result<(), SpecError> {
        let checkpointed = &self.checkpoint_activations;
        if !checkpointed.is_empty() {
            let levels = self.channels.len();
            one_per_level("model.checkpoint_activations", checkpointed, "model.channels", levels)?;
        }
        match self.kind {
            ModelKind::Small => self.refuse_ignored(),
            ModelKind::Unet | ModelKind::Classifier => Ok(()),
        }
    }

    /// The small net refuses options that it would ignore.
    fn refuse_ignored(&self) -> Result<(), SpecError> {
        let unet = Self::default();
        let ignored = [
            ("model.attention", self.attention.contains(&true)),
            ("model.checkpoint_activations", self.checkpoint_activations.contains(&true)),
            ("model.head_dim", self.head_dim.is_some()),
            ("model.dropout", self.dropout != 0.0),
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
