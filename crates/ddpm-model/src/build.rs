//! From validated settings to the objects that a run is made of.

use std::path::PathBuf;
use std::time::Duration;

use ddpm_checkpoint::StoreOptions;
use ddpm_config::{
    Loss as LossSetting, ModelKind, Predict, Schedule, Settings, Variance, Weighting as WeightingSetting,
};
use ddpm_diffusion::{
    BetaSchedule, Diffusion, Loss, Prediction, Settings as DiffusionSettings, VISIBLE_SIGNAL, VarianceKind, Weighting,
};
use ddpm_nn::{Architecture, ClassifierConfig, MidAttention, SmallUNetConfig, UNetConfig};
use tch::Device;

use crate::error::{Error, ErrorKind};

/// Width of the small U-Net's time embedding, as in the tutorial.
const SMALL_TIME_WIDTH: i64 = 60;

/// The network that `[model]` describes.
pub fn architecture(settings: &Settings) -> Architecture {
    let (model, data) = (&settings.model, &settings.data);
    let in_channels = i64::from(data.channels);
    let out_channels = variance(settings).model_channels(in_channels);
    let channels = model.channels.iter().map(|c| i64::from(*c)).collect();
    let image_size = i64::from(data.image_size);
    let unet = |channels, classes| UNetConfig {
        image_size,
        in_channels,
        out_channels,
        channels,
        layers_per_block: i64::from(model.layers_per_block),
        attention: model.attention.clone(),
        residual_resampling: false,
        head_dim: model.head_dim.map(i64::from),
        norm_groups: i64::from(model.norm_groups),
        norm_eps: model.norm_eps,
        mid_attention: MidAttention::Normed { groups: i64::from(model.norm_groups) },
        dropout: model.dropout,
        time_scale_shift: model.time_scale_shift,
        downsample_padding: i64::from(model.downsample_padding),
        flip_sin_to_cos: model.flip_sin_to_cos,
        freq_shift: i64::from(model.freq_shift),
        classes,
    };
    match model.kind {
        ModelKind::Small => Architecture::Small(SmallUNetConfig {
            image_size,
            in_channels,
            out_channels,
            channels,
            time_width: SMALL_TIME_WIDTH,
        }),
        ModelKind::Unet => Architecture::UNet(unet(channels, class_rows(settings))),
        ModelKind::Classifier => Architecture::Classifier(ClassifierConfig {
            encoder: unet(channels, None),
            classes: model.classes.map_or(0, i64::from),
        }),
    }
}

/// Rows of the class table: one per class, and one for "no class" where labels are dropped.
fn class_rows(settings: &Settings) -> Option<i64> {
    null_class(settings).map(|null| null + 1).or(settings.model.classes.map(i64::from))
}

/// The row of the class table that means "no class", where labels are dropped in training: the last.
pub fn null_class(settings: &Settings) -> Option<i64> {
    settings.model.classes.map(i64::from).filter(|_| settings.diffusion.label_dropout > 0.0)
}

fn variance(settings: &Settings) -> VarianceKind {
    match settings.diffusion.variance {
        Variance::FixedSmall => VarianceKind::FixedSmall,
        Variance::FixedLarge => VarianceKind::FixedLarge,
        Variance::LearnedRange => VarianceKind::LearnedRange,
    }
}

/// The diffusion process that `[diffusion]` describes; warns where its last step leaves visible signal.
pub fn diffusion(settings: &Settings, device: Device) -> Result<Diffusion, Error> {
    let d = &settings.diffusion;
    let process = Diffusion::new(
        beta_schedule(settings).betas(d.timesteps as usize)?,
        DiffusionSettings {
            prediction: match d.predict {
                Predict::Eps => Prediction::Eps,
                Predict::XStart => Prediction::XStart,
                Predict::V => Prediction::V,
            },
            variance: variance(settings),
            loss: match d.loss {
                LossSetting::Simple => Loss::Simple,
                LossSetting::Vlb => Loss::Vlb,
                LossSetting::Hybrid => Loss::Hybrid { lambda: d.lambda },
            },
            weighting: match d.weighting {
                WeightingSetting::None => Weighting::None,
                WeightingSetting::MinSnr => Weighting::MinSnr { gamma: d.min_snr_gamma },
                WeightingSetting::P2 => Weighting::P2 { gamma: d.p2_gamma, k: d.p2_k },
            },
        },
        device,
    )?;
    let signal = process.terminal_signal();
    if signal > VISIBLE_SIGNAL {
        tracing::warn!(
            "the schedule ends with alphas_cumprod = {signal:.3}: x_T still shows the image, which sampling from pure \
             noise never does; raise diffusion.timesteps or diffusion.beta_end"
        );
    }
    Ok(process)
}

/// The noise schedule that `[diffusion]` describes.
pub fn beta_schedule(settings: &Settings) -> BetaSchedule {
    let d = &settings.diffusion;
    let (start, end) = d.beta_range();
    match d.schedule {
        Schedule::Linear => BetaSchedule::Linear { start, end },
        Schedule::Quadratic => BetaSchedule::Quadratic { start, end },
        Schedule::Cosine => BetaSchedule::Cosine,
        Schedule::Sigmoid => BetaSchedule::Sigmoid { start, end },
        Schedule::Constant => BetaSchedule::Constant(end),
        Schedule::List => BetaSchedule::List(d.betas.clone()),
    }
}

/// The folder that relative paths are seen from.
pub fn current_folder() -> Result<PathBuf, Error> {
    std::env::current_dir().map_err(|e| {
        Error::new(ErrorKind::Storage, format!("the current folder is gone ({e}); change to one that is there"))
    })
}

/// How the store is talked to.
pub fn store_options(settings: &Settings) -> StoreOptions {
    let c = &settings.checkpoint;
    StoreOptions {
        part_bytes: (c.part_mb as usize) << 20,
        concurrency: c.concurrency,
        retry_timeout: Duration::from_secs(c.retry_s),
        ..StoreOptions::default()
    }
}
