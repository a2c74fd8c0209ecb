//! From validated settings to the objects that a run is made of.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ddpm_checkpoint::StoreOptions;
use ddpm_config::{
    DataKind, DataSettings, Labels, Loss as LossSetting, LrSchedule as LrShape, ModelKind,
    OnCorrupt as OnCorruptSetting, Predict, Schedule, Settings, TimestepSampler as SamplerSetting, Variance,
    Weighting as WeightingSetting,
};
use ddpm_data::{
    DataSpec, FolderLabels, IdxLabels, Loader, LoaderConfig, OnCorrupt, Order, Source, SourceKind, Split,
    class_phrases, some_of,
};
use ddpm_diffusion::{
    BetaSchedule, Diffusion, Loss, LossSecondMoment, Prediction, Settings as DiffusionSettings, TimestepSampler,
    VISIBLE_SIGNAL, VarianceKind, Weighting,
};
use ddpm_nn::{Architecture, ClassifierConfig, LrSchedule, MidAttention, SmallUNetConfig, UNetConfig};
use tch::Device;

use crate::failure::{Exit, Failure};

/// Width of the small U-Net's time embedding, as in the tutorial.
const SMALL_TIME_WIDTH: i64 = 60;

/// Classes that a line of the log names.
const CLASSES_SHOWN: usize = 20;

/// Batches decoded ahead per worker.
const PREFETCH_PER_WORKER: usize = 2;

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
pub fn diffusion(settings: &Settings, device: Device) -> Result<Diffusion, Failure> {
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

/// How training timesteps are drawn, with an empty history.
pub fn timestep_sampler(settings: &Settings) -> TimestepSampler {
    let timesteps = settings.diffusion.timesteps as usize;
    match settings.diffusion.timestep_sampler {
        SamplerSetting::Uniform => TimestepSampler::Uniform { timesteps },
        SamplerSetting::Stratified => TimestepSampler::Stratified {
            timesteps,
            global_batch: NonZeroU64::new(settings.train.global_batch as u64).expect("validated to be at least 1"),
        },
        SamplerSetting::LossSecondMoment => TimestepSampler::LossSecondMoment(LossSecondMoment::new(timesteps)),
    }
}

/// The learning rate that `[train]` describes.
pub fn lr_schedule(settings: &Settings) -> LrSchedule {
    let t = &settings.train;
    LrSchedule {
        peak: t.lr,
        warmup_steps: t.warmup_steps,
        cosine_until: (t.lr_schedule == LrShape::Cosine).then_some(t.steps),
    }
}

/// Opens the data set that `[data]` describes, and checks that its classes are those of `[model]`.
pub fn open_data(settings: &Settings, split: Split) -> Result<Arc<dyn Source>, Failure> {
    let source = ddpm_data::open(&data_spec(settings, split)?)?;
    let Some(classes) = settings.model.classes else { return Ok(source) };
    match source.classes() {
        Some(found) if found <= classes as usize => Ok(source),
        Some(found) => Err(Failure::usage(format!(
            "the data has {found} classes but model.classes is {classes}; set it to {found}"
        ))),
        None => Err(Failure::usage(format!(
            "model.classes is {classes} but the data carries no labels; set data.labels, or leave model.classes out"
        ))),
    }
}

fn data_spec(settings: &Settings, split: Split) -> Result<DataSpec, Failure> {
    let d = &settings.data;
    let kind = match d.kind {
        // Held-out digits are drawn by another seed.
        DataKind::Synthetic if split != Split::Train => SourceKind::Synthetic { count: d.count, seed: !settings.seed },
        DataKind::Synthetic => SourceKind::Synthetic { count: d.count, seed: settings.seed },
        DataKind::Packed => {
            return Err(Failure::usage("data.kind \"packed\" is not in this version; use \"folder\" or \"idx\""));
        }
        DataKind::Idx if split != Split::Train && Path::new(&d.path).is_file() => {
            return Err(Failure::usage(format!(
                "data.path is the file {}, which does not say where the {split} split is; set data.path to that split's file \
                 and ask for the train split",
                d.path
            )));
        }
        DataKind::Idx => SourceKind::Idx {
            images: PathBuf::from(&d.path),
            labels: match &d.labels {
                Labels::Path(path) => IdxLabels::At(PathBuf::from(path)),
                Labels::None => IdxLabels::None,
                _ => IdxLabels::Beside,
            },
            split,
        },
        DataKind::Folder => SourceKind::Folder {
            root: PathBuf::from(&d.path),
            split,
            labels: match &d.labels {
                Labels::Folder => FolderLabels::SubFolder,
                Labels::Attribute(name) => FolderLabels::Attribute(name.clone()),
                _ => FolderLabels::None,
            },
        },
    };
    Ok(DataSpec {
        kind,
        image_size: d.image_size as usize,
        channels: d.channels as usize,
        crop: d.crop,
        max_pixels: max_pixels(d),
        on_corrupt: match d.on_corrupt {
            OnCorruptSetting::Error => OnCorrupt::Error,
            OnCorruptSetting::Skip => OnCorrupt::Skip,
        },
    })
}

/// The first classes of a data set with their names and numbers of images, in a line for the log.
pub fn classes_in_short(source: &dyn Source) -> String {
    let table = source.class_table();
    some_of(class_phrases(&table), CLASSES_SHOWN)
}

/// Batches that a rank holds beside the one it trains on: ready, being decoded, or about to be used again.
pub fn batches_ahead(settings: &Settings) -> usize {
    PREFETCH_PER_WORKER * settings.data.workers + 1
}

/// Delivers one rank's slice of each batch, in `order`, from `start_step` on.
pub fn loader(
    settings: &Settings,
    source: &Arc<dyn Source>,
    order: Order,
    start_step: u64,
    rank: usize,
    world: usize,
) -> Result<Loader, Failure> {
    let workers = settings.data.workers;
    let config = LoaderConfig {
        global_batch: settings.train.global_batch,
        slice: ddpm_checkpoint::share(settings.train.global_batch, rank, world),
        start_step,
        workers,
        prefetch: PREFETCH_PER_WORKER * workers,
        flip: settings.data.flip,
        flip_seed: settings.seed,
    };
    Ok(Loader::new(Arc::clone(source), order, config)?)
}

/// The folder that relative paths are seen from.
pub fn current_folder() -> Result<PathBuf, Failure> {
    std::env::current_dir().map_err(|e| {
        Failure::new(Exit::Storage, format!("the current folder is gone ({e}); change to one that is there"))
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

/// The largest image that is decoded, in pixels.
pub fn max_pixels(data: &DataSettings) -> u64 {
    u64::from(data.max_megapixels) * 1_000_000
}
