//! Settings for a model that was trained elsewhere: from specifications back to sections.

use ddpm_spec::{
    BetaSchedule, DataKind, Heads, ImageSize, LossKind, MidAttention, MidAttentionKind, Prediction, ScheduleKind,
    SpecError, UNetSpec, Variance,
};

use crate::{DataSettings, DiffusionSettings, EmaSettings, ModelSettings, MonitorSettings, RunSettings, Settings};

/// What a model is, whoever trained it.
#[derive(Clone, Debug)]
pub struct ModelDescription {
    /// Its network.
    pub unet: UNetSpec,
    /// What the network predicts.
    pub prediction: Prediction,
    /// The variance of the reverse process.
    pub variance: Variance,
    /// The noise schedule.
    pub schedule: BetaSchedule,
    /// Number of timesteps.
    pub timesteps: usize,
}

impl Settings {
    /// The settings of a run in `dir` that holds this model: its network, its images and its process, and otherwise
    /// defaults. Nothing is known about its data. Averages begin at trained weights, so they are not warmed up.
    ///
    /// # Errors
    /// [`SpecError`] if a number of the model is larger than any that settings hold.
    pub fn of_model(dir: &str, model: &ModelDescription) -> Result<Self, SpecError> {
        let name = std::path::Path::new(dir).file_name().and_then(|name| name.to_str());
        let image = model.unet.image;
        let diffusion = DiffusionSettings::describing(model)?;
        let defaults = MonitorSettings::default();
        Ok(Self {
            run: RunSettings { dir: dir.into(), name: name.unwrap_or("imported").into() },
            data: DataSettings {
                kind: DataKind::Unknown,
                image_size: ImageSize {
                    height: fit("image.height", image.height)?,
                    width: fit("image.width", image.width)?,
                },
                channels: fit("image.channels", image.channels)?,
                ..DataSettings::default()
            },
            model: ModelSettings::describing(&model.unet)?,
            ema: EmaSettings { warmup: false, ..EmaSettings::default() },
            monitor: MonitorSettings {
                sample_steps: defaults.sample_steps.min(diffusion.timesteps),
                eval_timesteps: defaults.eval_timesteps.min(diffusion.timesteps),
                ..defaults
            },
            diffusion,
            ..Self::default()
        })
    }
}

impl ModelSettings {
    /// The `[model]` from which this network is built.
    ///
    /// # Errors
    /// [`SpecError`] if a number is larger than any that settings hold.
    pub fn describing(unet: &UNetSpec) -> Result<Self, SpecError> {
        let (mid_attention, mid_norm_groups) = match unet.mid_attention {
            MidAttention::Absent => (MidAttentionKind::Absent, None),
            MidAttention::Unnormed => (MidAttentionKind::Unnormed, None),
            MidAttention::Normed { groups } => {
                (MidAttentionKind::Normed, Some(groups).filter(|g| *g != unet.norm_groups))
            }
        };
        let (head_dim, heads) = match unet.heads {
            Heads::One => (None, None),
            Heads::Width(width) => (Some(fit("head_dim", width)?), None),
            Heads::Number(number) => (None, Some(fit("heads", number)?)),
        };
        Ok(Self {
            channels: unet.channels.iter().map(|width| fit("channels", *width)).collect::<Result<_, _>>()?,
            layers_per_block: fit("layers_per_block", unet.layers_per_block)?,
            attention: unet.attention.clone(),
            head_dim,
            heads,
            mid_attention,
            mid_norm_groups: mid_norm_groups.map(|groups| fit("mid_attention.groups", groups)).transpose()?,
            residual_resampling: unet.residual_resampling,
            norm_groups: fit("norm_groups", unet.norm_groups)?,
            dropout: unet.dropout,
            time_scale_shift: unet.time_scale_shift,
            downsample_padding: fit("downsample_padding", unet.downsample_padding)?,
            freq_shift: fit("freq_shift", unet.freq_shift)?,
            time_channels: unet.time_channels.map(|width| fit("time_channels", width)).transpose()?,
            time_scale: unet.time_scale,
            flip_sin_to_cos: unet.flip_sin_to_cos,
            norm_eps: unet.norm_eps,
            classes: unet.classes.map(|classes| fit("classes", classes)).transpose()?,
            ..Self::default()
        })
    }
}

impl DiffusionSettings {
    /// The `[diffusion]` of this model, with the usual objective for its variance.
    fn describing(model: &ModelDescription) -> Result<Self, SpecError> {
        let (before, zero_terminal_snr) = match &model.schedule {
            BetaSchedule::ZeroTerminalSnr(before) => (before.as_ref(), true),
            schedule => (schedule, false),
        };
        let mut betas = Vec::new();
        let (schedule, beta_start, beta_end) = match before {
            BetaSchedule::Linear { start, end } => (ScheduleKind::Linear, Some(*start), Some(*end)),
            BetaSchedule::Quadratic { start, end } => (ScheduleKind::Quadratic, Some(*start), Some(*end)),
            BetaSchedule::Sigmoid { start, end } => (ScheduleKind::Sigmoid, Some(*start), Some(*end)),
            BetaSchedule::Constant(beta) => (ScheduleKind::Constant, None, Some(*beta)),
            BetaSchedule::Cosine => (ScheduleKind::Cosine, None, None),
            BetaSchedule::List(list) => {
                betas.clone_from(list);
                (ScheduleKind::List, None, None)
            }
            BetaSchedule::ZeroTerminalSnr(_) => {
                return Err(SpecError {
                    path: "diffusion.schedule".into(),
                    problem: "the schedule is rescaled to zero terminal SNR twice".into(),
                    fix: "Rescale it once".into(),
                });
            }
        };
        Ok(Self {
            timesteps: fit("timesteps", model.timesteps)?,
            schedule,
            beta_start,
            beta_end,
            betas,
            zero_terminal_snr,
            predict: model.prediction,
            variance: model.variance,
            loss: match model.variance {
                Variance::LearnedRange => LossKind::Hybrid,
                Variance::FixedSmall | Variance::FixedLarge => LossKind::Simple,
            },
            ..Self::default()
        })
    }
}

/// A number as settings hold it.
fn fit<N: TryInto<u32> + Copy + std::fmt::Display>(field: &str, number: N) -> Result<u32, SpecError> {
    number.try_into().map_err(|_| SpecError {
        path: field.into(),
        problem: format!("{field} = {number} is out of range"),
        fix: format!("It must be from 0 to {}", u32::MAX),
    })
}
