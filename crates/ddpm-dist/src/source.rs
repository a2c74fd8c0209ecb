//! SRC, a model to sample from or to evaluate: a run, a run at a step, or a diffusers directory.

use std::path::Path;
use std::sync::Arc;

use ddpm_checkpoint::{CheckpointError, Manifest, Store, Want};
use ddpm_comm::Collective;
use ddpm_config::Settings;
use ddpm_data::{Source, Split};
use ddpm_diffusion::{BetaSchedule, Diffusion, Loss, Prediction, VarianceKind, Weighting};
use ddpm_nn::{Architecture, Network, UNetFile, Weights, read_unet_config, read_unet_weights};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::assemble;
use crate::coordinator::{Learner, unanimous};
use crate::failure::{Exit, Failure};
use crate::run_dir::{resettled, store_of};
use crate::trainer::{WEIGHTS, ema_buffer};

/// A network with its numbers and its process.
pub struct Model {
    /// The network.
    pub network: Network,
    /// Its numbers.
    pub weights: Weights,
    /// The process that it was trained on.
    pub diffusion: Diffusion,
    /// The row of the class table that means "no class", if it has one.
    pub null_class: Option<i64>,
    /// Number of classes that can be asked for.
    pub classes: Option<i64>,
    /// Whether predicted images are clipped to [-1, 1] unless asked otherwise.
    pub clips: bool,
    /// What the run was trained with; a diffusers directory does not say.
    pub settings: Option<Settings>,
    /// One phrase for the log.
    pub description: String,
}

/// Which of a run's weights to use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WeightChoice {
    /// The slowest average, or the raw weights where there is none.
    SlowestAverage,
    /// What the optimizer works on.
    Raw,
    /// The average with this rate.
    Rate(f64),
}

impl std::str::FromStr for WeightChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ema" => Ok(Self::SlowestAverage),
            "raw" => Ok(Self::Raw),
            _ => text.parse().map(Self::Rate).map_err(|_| "give ema, raw or the rate of an average".into()),
        }
    }
}

/// What rank 0 found at SRC, for all ranks.
#[derive(Serialize, Deserialize)]
enum Found {
    /// A diffusers directory, which every rank reads itself.
    Diffusers,
    /// A checkpoint, of which one buffer follows.
    Run { description: String, settings: Box<Settings>, numbers: usize },
}

impl Model {
    /// Opens SRC, all ranks together: rank 0 chooses the checkpoint, reads the weights asked for and sends them on, so
    /// that all have the same while a run goes on saving, and the store sends them once.
    pub fn open(comm: &dyn Collective, source: &str, choice: WeightChoice, device: Device) -> Result<Self, Failure> {
        Self::open_as(Learner::Diffusion, comm, source, choice, device)
    }

    /// The same, of what `learner` has learnt and nothing else.
    pub fn open_as(
        learner: Learner,
        comm: &dyn Collective,
        source: &str,
        choice: WeightChoice,
        device: Device,
    ) -> Result<Self, Failure> {
        let read = if comm.rank() == 0 { find(learner, source, choice).map(Some) } else { Ok(None) };
        let (found, mut flat) = match unanimous(comm, read)? {
            Some((found, flat)) => (serde_json::to_vec(&found).map_err(Failure::internal)?, flat),
            None => (Vec::new(), Vec::new()),
        };
        let found = comm.broadcast_bytes(found, 0);
        match serde_json::from_slice(&found).map_err(Failure::internal)? {
            Found::Diffusers => unanimous(comm, Self::from_diffusers(Path::new(source), choice, device)),
            Found::Run { description, settings, numbers } => {
                flat.resize(numbers, 0.0);
                comm.broadcast(&mut flat, 0);
                unanimous(comm, Self::from_run(description, *settings, &flat, device))
            }
        }
    }

    fn from_run(description: String, settings: Settings, flat: &[f32], device: Device) -> Result<Self, Failure> {
        let network = Network::new(assemble::architecture(&settings))?;
        Ok(Self {
            weights: Weights::over(network.layout(), Tensor::from_slice(flat).to_device(device))?,
            network,
            diffusion: assemble::diffusion(&settings, device)?,
            null_class: assemble::null_class(&settings),
            classes: settings.model.classes.map(i64::from),
            clips: true,
            settings: Some(settings),
            description,
        })
    }

    fn from_diffusers(directory: &Path, choice: WeightChoice, device: Device) -> Result<Self, Failure> {
        if choice != WeightChoice::SlowestAverage {
            return Err(Failure::usage("a diffusers directory holds one set of weights; leave --weights out"));
        }
        let files = UNetFile::within(directory);
        let config = read_unet_config(&files.config)?;
        let classes = config.classes;
        let path = directory.join("scheduler/scheduler_config.json");
        let unreadable = |e: &dyn std::fmt::Display| {
            Failure::new(Exit::Storage, format!("cannot read {}: {e}; it should hold a DDPMScheduler", path.display()))
        };
        let text = std::fs::read_to_string(&path).map_err(|e| unreadable(&e))?;
        let scheduler: SchedulerConfig = serde_json::from_str(&text).map_err(|e| unreadable(&e))?;
        let clips = scheduler.clip_sample;
        let network = Network::new(Architecture::UNet(config))?;
        Ok(Self {
            weights: read_unet_weights(&files.weights, network.layout(), device)?,
            network,
            // The file was read: what it asks for is a matter of configuration.
            diffusion: scheduler.diffusion(device).map_err(|failure| failure.within(&path))?,
            null_class: None,
            classes,
            clips,
            settings: None,
            description: format!("{} (diffusers)", directory.display()),
        })
    }

    /// The configuration that images come from: `config`, by default that of the model's own run, under `overrides`.
    pub fn data_settings(&self, config: Option<&str>, overrides: &[String]) -> Result<Settings, Failure> {
        match (config, &self.settings) {
            (Some(config), _) => Ok(Settings::load(config, overrides)?),
            (None, Some(settings)) => {
                let settings = Settings::from_toml(&settings.to_toml(), "the run's configuration", overrides)?;
                let path = &settings.data.path;
                if !path.is_empty()
                    && Path::new(path).is_relative()
                    && !overrides.iter().any(|set| set.contains("data.path"))
                {
                    tracing::warn!(
                        "the run says that its data are in {path}, seen from the folder where it was started, which it does \
                         not say; reading {path} here. Another place is named by --set data.path=..."
                    );
                }
                Ok(settings)
            }
            (None, None) => Err(Failure::usage(
                "a diffusers directory does not say what it was trained on; name a configuration with --data",
            )),
        }
    }

    /// Opens the images that `settings` describe. Refuses another shape than the model's, and classes that it does not
    /// know.
    pub fn open_data(&self, settings: &Settings, split: Split) -> Result<Arc<dyn Source>, Failure> {
        let source = assemble::open_data(settings, split)?;
        let (spec, (channels, size)) = (source.spec(), self.network.image());
        if (spec.channels as i64, spec.size as i64) != (channels, size) {
            return Err(Failure::usage(format!(
                "the model is of {channels}x{size}x{size} images (channels, height, width) and the data are \
                 {0}x{1}x{1}; add --set data.image_size={size} --set data.channels={channels}",
                spec.channels, spec.size
            )));
        }
        match (self.classes, source.classes()) {
            (Some(classes), Some(found)) if found as i64 > classes => Err(Failure::usage(format!(
                "the data has {found} classes and the model knows {classes}; name the data it was trained on"
            ))),
            (Some(classes), None) => Err(Failure::usage(format!(
                "the model wants one of {classes} classes with each image but the data carries no labels; set data.labels"
            ))),
            _ => Ok(source),
        }
    }
}

/// The run and the step of `RUN@STEP`; an `@` in a folder's name or an address is not one.
fn step_of(source: &str) -> Option<(&str, u64)> {
    let (run, step) = source.rsplit_once('@').filter(|_| !Path::new(source).exists())?;
    Some((run, step.parse().ok()?))
}

/// What SRC is; of a run, with the weights asked for.
fn find(learner: Learner, source: &str, choice: WeightChoice) -> Result<(Found, Vec<f32>), Failure> {
    if Path::new(source).join("model_index.json").is_file() {
        refuse_other(learner, Learner::Diffusion, source)?;
        return Ok((Found::Diffusers, Vec::new()));
    }
    let (run, want) = step_of(source).map_or((source, Want::Latest), |(run, step)| (run, Want::Step(step)));
    let store = Store::open_existing(&store_of(run)?)?;
    let mut search = store.search(want)?;
    while let Some(manifest) = search.candidate()? {
        match read(learner, run, &store, &manifest, choice)? {
            Ok(found) => return Ok(found),
            Err(damaged) => search.reject(manifest.step, damaged)?,
        }
    }
    let message = format!("{} has no checkpoint yet; train first, or name another run", store.uri());
    Err(Failure::new(Exit::Storage, message))
}

/// The weights asked for, of one checkpoint; or in what it is damaged.
fn read(
    learner: Learner,
    run: &str,
    store: &Store,
    manifest: &Manifest,
    choice: WeightChoice,
) -> Result<Result<(Found, Vec<f32>), CheckpointError>, Failure> {
    let settings: Settings = serde_json::from_value(manifest.config.clone()).map_err(|e| {
        let program = &manifest.program;
        let message = format!("{run} was written by {program}, which this version cannot read ({e}); use that version");
        Failure::new(Exit::Storage, message)
    })?;
    refuse_other(learner, Learner::of(&settings), run)?;
    let settings = resettled(settings, Path::new(run));
    let slowest = settings.ema.rates.iter().copied().max_by(f64::total_cmp);
    let buffer = match choice {
        WeightChoice::SlowestAverage => slowest.map_or(WEIGHTS.into(), ema_buffer),
        WeightChoice::Raw => WEIGHTS.into(),
        WeightChoice::Rate(rate) => ema_buffer(rate),
    };
    let flat = match store.load_buffer(manifest, &buffer) {
        Err(damaged @ CheckpointError::Damaged { .. }) => return Ok(Err(damaged)),
        loaded => loaded?,
    };
    let description = format!("{run} at step {}, {buffer}", manifest.step);
    Ok(Ok((Found::Run { description, settings: Box::new(settings), numbers: flat.len() }, flat)))
}

fn refuse_other(wanted: Learner, found: Learner, source: &str) -> Result<(), Failure> {
    if wanted == found {
        return Ok(());
    }
    let ((wanted, command), (found, _)) = (wanted.described(), found.described());
    Err(Failure::usage(format!("{source} holds {found}, where {wanted} is needed; name a run of `{command}`")))
}

/// The keys of a diffusers DDPMScheduler that say what the network was trained on.
#[derive(Deserialize)]
struct SchedulerConfig {
    num_train_timesteps: usize,
    beta_schedule: String,
    beta_start: f64,
    beta_end: f64,
    trained_betas: Option<Vec<f64>>,
    prediction_type: String,
    variance_type: String,
    #[serde(default)]
    rescale_betas_zero_snr: bool,
    #[serde(default)]
    thresholding: bool,
    #[serde(default = "yes")]
    clip_sample: bool,
    #[serde(default = "one")]
    clip_sample_range: f64,
}

fn yes() -> bool {
    true
}

fn one() -> f64 {
    1.0
}

impl SchedulerConfig {
    fn diffusion(self, device: Device) -> Result<Diffusion, Failure> {
        let (start, end) = (self.beta_start, self.beta_end);
        let unsupported = |key: &str, value: &str, known: &str| {
            Failure::usage(format!("{key} = {value:?} is not supported; it may be {known}"))
        };
        let only = [
            ("rescale_betas_zero_snr", self.rescale_betas_zero_snr, "false"),
            ("thresholding", self.thresholding, "false"),
            ("clip_sample_range", self.clip_sample_range != 1.0, "1"),
        ];
        if let Some((key, _, value)) = only.into_iter().find(|(_, asks, _)| *asks) {
            return Err(Failure::usage(format!("this {key} is not supported; it may be {value}")));
        }
        let schedule = match (self.trained_betas, self.beta_schedule.as_str()) {
            (Some(betas), _) => BetaSchedule::List(betas),
            (None, "linear") => BetaSchedule::Linear { start, end },
            (None, "scaled_linear") => BetaSchedule::Quadratic { start, end },
            (None, "squaredcos_cap_v2") => BetaSchedule::Cosine,
            (None, "sigmoid") => BetaSchedule::Sigmoid { start, end },
            (None, other) => {
                let known = "linear, scaled_linear, squaredcos_cap_v2 or sigmoid";
                return Err(unsupported("beta_schedule", other, known));
            }
        };
        let variance = match self.variance_type.as_str() {
            "fixed_small" | "fixed_small_log" => VarianceKind::FixedSmall,
            "fixed_large" | "fixed_large_log" => VarianceKind::FixedLarge,
            "learned_range" => VarianceKind::LearnedRange,
            other => {
                let known = "fixed_small, fixed_large, their _log forms or learned_range";
                return Err(unsupported("variance_type", other, known));
            }
        };
        let settings = ddpm_diffusion::Settings {
            prediction: match self.prediction_type.as_str() {
                "epsilon" => Prediction::Eps,
                "sample" => Prediction::XStart,
                "v_prediction" => Prediction::V,
                other => return Err(unsupported("prediction_type", other, "epsilon, sample or v_prediction")),
            },
            variance,
            // Nothing is trained here; this is the objective that any variance goes with.
            loss: Loss::Vlb,
            weighting: Weighting::None,
        };
        Ok(Diffusion::new(schedule.betas(self.num_train_timesteps)?, settings, device)?)
    }
}
