//! Opens a diffusers directory as a model: the network, and the scheduler that describes the process it was trained
//! on.

use std::path::{Path, PathBuf};

use ddpm_config::ModelDescription;
use ddpm_diffusion::{BetaSchedule, Diffusion, DiffusionSpec, Loss, Prediction, Variance, Weighting, betas};
use ddpm_nn::{Architecture, Network, SavedUNet, Weights};
use serde::Deserialize;
use tch::Device;

use crate::error::{Error, ErrorKind, Remedy};

/// A network with its weights and its diffusion process.
pub struct Pretrained {
    /// The network.
    pub network: Network,
    /// Its weights.
    pub weights: Weights,
    /// The diffusion process that it was trained on.
    pub diffusion: Diffusion,
    /// What all this was built from.
    pub description: ModelDescription,
    /// Whether its scheduler clips predicted images to [-1, 1].
    pub clips: bool,
}

/// Whether a path is meant as a diffusers directory. Refuses paths that are near misses: a file inside such a
/// directory, or a model's folder in the cache of the Hub.
pub fn is_diffusers_dir(source: &Path) -> Result<bool, Error> {
    if source.join("model_index.json").is_file() || SavedUNet::is_in(source) {
        return Ok(true);
    }
    let ending = source.extension().and_then(|ending| ending.to_str());
    if source.is_file() && matches!(ending, Some("pt" | "pth")) {
        let message = format!("{} is a file of weights, which does not say how they are used", source.display());
        return Err(Error::config(message).or(Remedy::Import(source.display().to_string())));
    }
    if source.is_file() && matches!(ending, Some("safetensors" | "bin" | "json")) {
        let message = format!("{} is a file; give the folder of the model that it belongs to", source.display());
        return Err(Error::config(message));
    }
    let snapshots = source.join("snapshots");
    if snapshots.is_dir() && source.join("refs").is_dir() {
        let main = std::fs::read_to_string(source.join("refs/main")).unwrap_or("HASH".into());
        return Err(Error::config(format!(
            "{} is a model's folder in the cache of the Hub; give the snapshot in it, {}",
            source.display(),
            snapshots.join(main.trim()).display()
        )));
    }
    Ok(false)
}

/// Reads the model in `directory`. Set `warn` on one rank only: it logs warnings.
pub fn open(directory: &Path, device: Device, warn: bool) -> Result<Pretrained, Error> {
    refuse_latent(directory)?;
    let saved = SavedUNet::open(directory)?;
    if warn && !saved.ignored().is_empty() {
        let keys = saved.ignored().join(", ");
        tracing::warn!("{}: these keys are unknown to UNet2DModel and were ignored: {keys}", directory.display());
    }
    let config = saved.config().clone();
    let path = scheduler_path(directory)?;
    let scheduler = SchedulerConfig::read(&path)?;
    // The files are readable. From here on, unsupported values are configuration errors.
    let variance = scheduler.variance().map_err(|error| error.within(&path))?;
    let channels = [config.image.channels as i64, config.out_channels];
    refuse_channels(directory, channels, variance).map_err(|error| error.within(&path))?;
    let architecture = Architecture::UNet(config.clone());
    let network = Network::new(architecture).map_err(|error| Error::from(error).within(directory))?;
    let schedule = scheduler.schedule().map_err(|error| error.within(&path))?;
    let weights = saved.load(network.layout(), device)?;
    let diffusion = scheduler.diffusion(&schedule, variance, device).map_err(|error| error.within(&path))?;
    Ok(Pretrained {
        description: ModelDescription {
            unet: config,
            prediction: diffusion.spec().prediction,
            variance,
            schedule,
            timesteps: diffusion.timesteps(),
        },
        network,
        weights,
        diffusion,
        clips: scheduler.clip_sample.unwrap_or(true),
    })
}

/// Refuses a network whose output channels do not match the variance type.
fn refuse_channels(directory: &Path, [taken, given]: [i64; 2], variance: Variance) -> Result<(), Error> {
    let directory = directory.display();
    if given == variance.model_channels(taken) {
        Ok(())
    } else if given == taken || given == 2 * taken {
        let fix = if given == taken { "fixed_small or fixed_large" } else { "learned_range" };
        Err(Error::config(format!(
            "the network in {directory} takes {taken} channels and gives {given}, which does not match this \
             variance_type; set it to {fix}"
        )))
    } else {
        Err(Error::config(format!(
            "the network in {directory} takes {taken} channels and gives {given}, which is not supported; it must give \
             as many, or twice as many with a learned variance"
        )))
    }
}

/// Refuses a pipeline with components other than a network and a scheduler, because its images are not the direct
/// output of the network.
fn refuse_latent(directory: &Path) -> Result<(), Error> {
    let path = directory.join("model_index.json");
    // The file is optional, and nothing else in it is needed here.
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(()) };
    let index: serde_json::Value = serde_json::from_str(&text).map_err(|e| {
        let what = format!("cannot read {}: {e}; download or copy it again", path.display());
        Error::new(ErrorKind::Storage, what)
    })?;
    let others = index.as_object().into_iter().flatten().filter(|(name, part)| {
        let is_part = part.as_array().is_some_and(|part| part.iter().any(|name| name.is_string()));
        is_part && !matches!(name.as_str(), "unet" | "scheduler")
    });
    let others: Vec<&str> = others.map(|(name, _)| name.as_str()).collect();
    if others.is_empty() {
        return Ok(());
    }
    Err(Error::config(format!(
        "{}: this pipeline also has {}, which is not supported; its pixels must come from a UNet2DModel alone",
        path.display(),
        others.join(", ")
    )))
}

/// The path of the scheduler of the model in `directory`: in a pipeline's `scheduler` folder, next to the model's
/// files, or in the pipeline whose `unet` (or, in a training checkpoint, `unet_ema`) folder `directory` is.
fn scheduler_path(directory: &Path) -> Result<PathBuf, Error> {
    const NAME: &str = "scheduler_config.json";
    let own = ["scheduler", ""].map(|folder| directory.join(folder).join(NAME));
    let around = [["..", "scheduler"], ["../..", "scheduler"]].map(|[up, folder]| directory.join(up).join(folder));
    let is_part = directory.join("config.json").is_file();
    let around = around.into_iter().map(|folder| folder.join(NAME)).filter(|_| is_part);
    own.into_iter().chain(around).find(|path| path.is_file()).ok_or_else(|| {
        Error::new(
            ErrorKind::Storage,
            format!(
                "there is no scheduler/{NAME} or {NAME} in {}, which says what the network was trained on; copy it there, \
                 or write {{\"_class_name\": \"DDPMScheduler\"}} into it if that was diffusers' default",
                directory.display()
            ),
        )
    })
}

/// Maximum number of timesteps; a larger number is a mistake in the file.
const MOST_TIMESTEPS: usize = 1_000_000;

/// The supported schedulers, which all describe the same training process, with their default `beta_start` and
/// `beta_end`.
const SCHEDULERS: [(&[&str], [f64; 2]); 2] = [
    (
        &[
            "DDPMScheduler",
            "DDPMParallelScheduler",
            "DDIMScheduler",
            "DDIMParallelScheduler",
            "DDIMInverseScheduler",
            "PNDMScheduler",
            "RePaintScheduler",
            "LMSDiscreteScheduler",
            "EulerDiscreteScheduler",
            "EulerAncestralDiscreteScheduler",
            "DPMSolverMultistepScheduler",
            "DPMSolverMultistepInverseScheduler",
            "DPMSolverSinglestepScheduler",
            "DEISMultistepScheduler",
            "UniPCMultistepScheduler",
        ],
        [0.0001, 0.02],
    ),
    (
        &[
            "HeunDiscreteScheduler",
            "KDPM2DiscreteScheduler",
            "KDPM2AncestralDiscreteScheduler",
            "DPMSolverSDEScheduler",
        ],
        [0.00085, 0.012],
    ),
];

/// The keys of a scheduler that describe how the network was trained. An absent or null key has the
/// meaning that it had before diffusers wrote this key; no version has changed that meaning.
#[derive(Deserialize)]
struct SchedulerConfig {
    #[serde(rename = "_class_name")]
    class: Option<String>,
    num_train_timesteps: Option<usize>,
    beta_schedule: Option<String>,
    beta_start: Option<f64>,
    beta_end: Option<f64>,
    trained_betas: Option<Vec<f64>>,
    prediction_type: Option<String>,
    /// The predecessor of `prediction_type`, until version 0.9.
    predict_epsilon: Option<bool>,
    variance_type: Option<String>,
    rescale_betas_zero_snr: Option<bool>,
    thresholding: Option<bool>,
    clip_sample: Option<bool>,
    clip_sample_range: Option<f64>,
}

impl SchedulerConfig {
    fn read(path: &Path) -> Result<Self, Error> {
        let unreadable = |e: &dyn std::fmt::Display| {
            let what = format!("cannot read {}: {e}; it should hold a DDPMScheduler", path.display());
            Error::new(ErrorKind::Storage, what)
        };
        let text = std::fs::read_to_string(path).map_err(|e| unreadable(&e))?;
        serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|e| unreadable(&e))
    }

    fn variance(&self) -> Result<Variance, Error> {
        match self.variance_type.as_deref() {
            None | Some("fixed_small" | "fixed_small_log") => Ok(Variance::FixedSmall),
            Some("fixed_large" | "fixed_large_log") => Ok(Variance::FixedLarge),
            Some("learned_range") => Ok(Variance::LearnedRange),
            Some(other) => {
                let known = "fixed_small, fixed_large, their _log forms or learned_range";
                Err(unsupported("variance_type", other, known))
            }
        }
    }

    fn prediction(&self) -> Result<Prediction, Error> {
        match (self.prediction_type.as_deref(), self.predict_epsilon) {
            (None, Some(false)) | (Some("sample"), _) => Ok(Prediction::XStart),
            (None | Some("epsilon"), _) => Ok(Prediction::Eps),
            (Some("v_prediction"), _) => Ok(Prediction::V),
            (Some(other), _) => Err(unsupported("prediction_type", other, "epsilon, sample or v_prediction")),
        }
    }

    fn schedule(&self) -> Result<BetaSchedule, Error> {
        let class = self.class.as_deref().unwrap_or("DDPMScheduler");
        let Some((_, ends)) = SCHEDULERS.iter().find(|(names, _)| names.contains(&class)) else {
            return Err(unsupported(
                "_class_name",
                class,
                "DDPMScheduler, DDIMScheduler, or another over the same betas",
            ));
        };
        let [start, end] = [self.beta_start.unwrap_or(ends[0]), self.beta_end.unwrap_or(ends[1])];
        let schedule = match (&self.trained_betas, self.beta_schedule.as_deref()) {
            (Some(betas), _) => BetaSchedule::List(betas.clone()),
            (None, None | Some("linear")) => BetaSchedule::Linear { start, end },
            (None, Some("scaled_linear")) => BetaSchedule::Quadratic { start, end },
            (None, Some("squaredcos_cap_v2")) => BetaSchedule::Cosine,
            (None, Some("sigmoid")) => BetaSchedule::Sigmoid { start, end },
            (None, Some(other)) => {
                let known = "linear, scaled_linear, squaredcos_cap_v2 or sigmoid";
                return Err(unsupported("beta_schedule", other, known));
            }
        };
        let rescaled = self.rescale_betas_zero_snr == Some(true);
        Ok(if rescaled { BetaSchedule::ZeroTerminalSnr(Box::new(schedule)) } else { schedule })
    }

    fn diffusion(&self, schedule: &BetaSchedule, variance: Variance, device: Device) -> Result<Diffusion, Error> {
        let clips_elsewhere = self.clip_sample != Some(false) && self.clip_sample_range.is_some_and(|end| end != 1.0);
        let only =
            [("thresholding", self.thresholding == Some(true), "false"), ("clip_sample_range", clips_elsewhere, "1")];
        if let Some((key, _, value)) = only.into_iter().find(|(_, asks, _)| *asks) {
            let error = Error::config(format!("this {key} is not supported; it may be {value}"));
            return Err(if key == "thresholding" { error.or(Remedy::ThresholdSamples) } else { error });
        }
        let prediction = self.prediction()?;
        if matches!(schedule, BetaSchedule::ZeroTerminalSnr(_)) && prediction == Prediction::Eps {
            return Err(Error::config(
                "this rescale_betas_zero_snr leaves pure noise at the last timestep, whose epsilon says nothing about the \
                 image; with a prediction_type of epsilon it may be false",
            ));
        }
        let spec = DiffusionSpec {
            prediction,
            variance,
            // Nothing is trained here. This loss is compatible with any variance.
            loss: Loss::Vlb,
            weighting: Weighting::None,
        };
        let steps = self.num_train_timesteps.unwrap_or(1000);
        if steps > MOST_TIMESTEPS {
            return Err(unsupported("num_train_timesteps", &steps.to_string(), &format!("1 to {MOST_TIMESTEPS}")));
        }
        Ok(Diffusion::new(betas(schedule, steps)?, spec, device)?)
    }
}

fn unsupported(key: &str, value: &str, known: &str) -> Error {
    Error::config(format!("{key} = {value:?} is not supported; it may be {known}"))
}
