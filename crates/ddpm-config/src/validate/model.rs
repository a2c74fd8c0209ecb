//! `[model]`: options that do not belong to an architecture, and options that the chosen architecture would ignore.

use ddpm_spec::check::{one_per_level, require};
use ddpm_spec::{MidAttentionKind, ModelKind, SpecError};

use crate::ModelSettings;

impl ModelSettings {
    pub(super) fn validate(&self) -> Result<(), SpecError> {
        let checkpointed = &self.checkpoint_activations;
        if !checkpointed.is_empty() {
            let levels = self.channels.len();
            one_per_level("model.checkpoint_activations", checkpointed, "model.channels", levels)?;
        }
        require(
            self.heads.is_none() || self.head_dim.is_none(),
            "model.heads",
            || "model.heads and model.head_dim are both set".into(),
            || "Set one of them to 0".into(),
        )?;
        require(
            self.mid_norm_groups.is_none() || self.mid_attention == MidAttentionKind::Normed,
            "model.mid_norm_groups",
            || "model.mid_norm_groups is set, but this model.mid_attention has no norm".into(),
            || "Set it to 0, or model.mid_attention to \"normed\"".into(),
        )?;
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
            ("model.heads", self.heads.is_some()),
            ("model.mid_attention", self.mid_attention != unet.mid_attention),
            ("model.mid_norm_groups", self.mid_norm_groups.is_some()),
            ("model.residual_resampling", self.residual_resampling),
            ("model.dropout", self.dropout != 0.0),
            ("model.time_scale_shift", self.time_scale_shift),
            ("model.classes", self.classes.is_some()),
            ("model.layers_per_block", self.layers_per_block != unet.layers_per_block),
            ("model.norm_groups", self.norm_groups != unet.norm_groups),
            ("model.downsample_padding", self.downsample_padding != unet.downsample_padding),
            ("model.freq_shift", self.freq_shift != unet.freq_shift),
            ("model.time_channels", self.time_channels.is_some()),
            ("model.time_scale", self.time_scale != unet.time_scale),
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
